//! Time, which stands still between two operations, and Redis, which goes back to what it was: done with raw commands.

use super::super::world::Model;
use super::super::{Checked, HOSTS};
use super::Bench;

/// Ends the hold of a host and what workers that got no answer wait for, so many ms ago; with `1` only what has not ended. Returns
/// the time.
const END_HOLDS: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local text = redis.call('HGET', KEYS[1], ARGV[1])
    if not text then return now end
    local state = cjson.decode(text)
    local ago = tonumber(ARGV[2])
    if state.probe and state.probe > now then ago = 1 end
    if state.ends and (ago > 1 or state.ends > now) then
      state.ends = now - ago
      redis.call('ZADD', KEYS[2], state.ends, ARGV[1])
    end
    for _, hold in pairs(state.alone or {}) do hold.ends = math.min(hold.ends, now - 1) end
    redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(state))
    return {now, ago}";

/// Stops time: so many ms from now on are taken of each host, and what is due soon is due in 50 s, where the scripts look for the next
/// ones in a host's line. Returns the time, then what was put off.
const STOP_TIME: &str = "
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    for i = 1, #ARGV, 2 do
      local text = redis.call('HGET', KEYS[1], ARGV[i])
      if text then
        local state = cjson.decode(text)
        local taken = tonumber(ARGV[i + 1])
        state.tat = taken > 0 and now + taken or nil
        redis.call('HSET', KEYS[1], ARGV[i], cjson.encode(state))
      end
    end
    local reply = {now}
    for _, payload in ipairs(redis.call('ZRANGE', KEYS[2], '(' .. now, now + 50000, 'BYSCORE')) do
      redis.call('ZADD', KEYS[2], now + 50000, payload)
      reply[#reply + 1] = payload
    end
    return reply";

/// Copies all keys that begin with ARGV 1 to names that begin with ARGV 2, which are below the former.
const SAVE: &str = "
    for _, key in ipairs(redis.call('KEYS', ARGV[2] .. '*')) do redis.call('UNLINK', key) end
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
      redis.call('COPY', key, ARGV[2] .. string.sub(key, #ARGV[1] + 1))
    end";
const ROLL_BACK: &str = "
    for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
      if string.sub(key, 1, #ARGV[2]) ~= ARGV[2] then redis.call('UNLINK', key) end
    end
    for _, key in ipairs(redis.call('KEYS', ARGV[2] .. '*')) do
      redis.call('COPY', key, ARGV[1] .. string.sub(key, #ARGV[2] + 1))
    end";

impl Bench {
    /// The time of a hold has passed, and so many ms since.
    pub(super) fn end_holds(&mut self, host: &str, ms_ago: u64) -> Checked {
        let ago = ms_ago.to_string();
        let reply: redis::Value = self.raw.run(&["EVAL", END_HOLDS, "2", "@hosts", "@hosts:held", host, &ago]);
        // Without an entry there is nothing to end.
        if let Ok((now, ago)) = redis::from_redis_value::<(u64, u64)>(reply)
            && let Some(known) = self.model.state.hosts.get_mut(host)
        {
            known.ends = known.ends.map(|ends| if ago > 1 || ends > now { now - ago } else { ends });
            known.alone.values_mut().for_each(|(ends, _)| *ends = (*ends).min(now - 1));
        }
        self.look()
    }

    /// One of the hosts that anything is remembered of.
    pub(super) fn remembered(&self, n: usize) -> Option<&'static str> {
        let hosts: Vec<_> = HOSTS.into_iter().filter(|host| self.model.state.hosts.contains_key(*host)).collect();
        hosts.get(n % hosts.len().max(1)).copied()
    }

    /// One start of each host has passed.
    pub(super) fn pass_starts(&mut self) -> Checked {
        self.model.taken.values_mut().for_each(|taken| *taken = taken.saturating_sub(1));
        self.stop();
        self.look()
    }

    /// Between two operations no time passes that matters to anybody.
    pub(super) fn stop_time(&mut self) {
        let (now, is_rated) = (self.model.now, self.model.taken.values().any(|taken| *taken > 0));
        let is_soon = |at: &u64| (now..now + 50_000).contains(at);
        self.stopped_at = None;
        if is_rated || self.model.state.delayed.values().any(is_soon) {
            self.stop();
        }
    }

    fn stop(&mut self) {
        let step = self.model.rate.step_ms().unwrap_or(0.0);
        let taken = HOSTS.map(|host| (self.model.taken(host) as f64 * step).to_string());
        let mut command = vec!["EVAL", STOP_TIME, "2", "@hosts", "@delayed"];
        if step > 0.0 {
            command.extend(HOSTS.iter().zip(&taken).flat_map(|(host, taken)| [*host, taken]));
        }
        let reply: Vec<redis::Value> = self.raw.run(&command);
        let mut reply = reply.into_iter();
        let stopped_at = redis::from_redis_value(reply.next().unwrap()).unwrap();
        self.stopped_at = Some(stopped_at);
        for payload in reply {
            let payload: String = redis::from_redis_value(payload).unwrap();
            self.model.state.delayed.insert(payload, stopped_at + 50_000);
        }
    }

    /// What Redis goes back to.
    pub(super) fn save(&mut self) {
        let keys = [self.raw.key(""), self.raw.key("old:")];
        self.raw.run::<()>(&["EVAL", SAVE, "0", &keys[0], &keys[1]]);
        self.saved = Some((self.model.clone(), self.chunks.clone(), self.open.clone()));
    }

    /// Redis is what it was. Workers know what they know, and compare; enqueuers are new processes that ask how far they are.
    pub(super) fn roll_back(&mut self) -> Checked {
        let Some((model, chunks, open)) = self.saved.clone() else { return Ok(()) };
        let keys = [self.raw.key(""), self.raw.key("old:")];
        self.raw.run::<()>(&["EVAL", ROLL_BACK, "0", &keys[0], &keys[1]]);
        self.model = Model { now: self.model.now, ..model };
        (self.chunks, self.open) = (chunks, open);
        self.lives.iter_mut().flatten().for_each(|life| life.unsure = true);
        self.stop();
        self.look()
    }
}
