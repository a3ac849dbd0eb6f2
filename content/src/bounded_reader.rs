//! How files of strangers are read: through a buffer that a seek does not throw away, in a bounded number of steps, and with
//! a sign of progress at each read of the file.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

/// Steps from one part of a file to another: a chunk, a box, a segment, a frame. A file that takes more is made to take time.
///
/// PNGs come in chunks of 8 KiB (`PNG_ZBUF_SIZE` of libpng) or more, so that this is 2 GiB of them. A fragmented MP4 has two
/// boxes for each fragment (ISO/IEC 23000-19), so that this is an hour of video with a fragment for each of its frames. All
/// other files have a handful of parts, a few hundred, or one for each frame of an animation.
pub(crate) const STEPS_MAX: u32 = 1 << 18;

/// A buffered reader of one file. Each seek is a step.
pub(crate) struct BoundedReader<'a, R> {
    buffered: BufReader<Reporting<'a, R>>,
    steps_left: u32,
}

impl<'a, R: Read + Seek> BoundedReader<'a, R> {
    /// Reads `file` from its beginning; `progress` is called before each read of it.
    pub(crate) fn new(mut file: R, progress: &'a dyn Fn()) -> io::Result<BoundedReader<'a, R>> {
        file.rewind()?;
        let reporting = Reporting { file, position: 0, progress };
        Ok(BoundedReader { buffered: BufReader::new(reporting), steps_left: STEPS_MAX })
    }

    /// The length of the file in bytes. No step; the position stays.
    pub(crate) fn length(&mut self) -> io::Result<u64> {
        let Reporting { file, position, .. } = self.buffered.get_mut();
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(*position))?;
        Ok(length)
    }

    /// Reads as many bytes as `buffer` has; `false` when the file ends before.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl<R: Read + Seek> Read for BoundedReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.buffered.read(buffer)
    }
}

impl<R: Read + Seek> BufRead for BoundedReader<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.buffered.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.buffered.consume(bytes);
    }
}

impl<R: Read + Seek> Seek for BoundedReader<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.steps_left =
            self.steps_left.checked_sub(1).ok_or_else(|| io::Error::other("the file has too many parts"))?;
        let here = self.stream_position()?;
        // `BufReader::seek` throws its buffer away, wherever it goes.
        let offset = match to {
            SeekFrom::Current(offset) => offset,
            SeekFrom::Start(to) => i64::try_from(i128::from(to) - i128::from(here)).map_err(io::Error::other)?,
            SeekFrom::End(_) => return self.buffered.seek(to),
        };
        if here.checked_add_signed(offset).is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.buffered.seek_relative(offset)?;
        self.stream_position()
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.buffered.get_ref().position - self.buffered.buffer().len() as u64)
    }

    fn seek_relative(&mut self, offset: i64) -> io::Result<()> {
        self.seek(SeekFrom::Current(offset)).map(drop)
    }
}

/// The file itself, below the buffer. It knows where it is, which would be a system call to ask.
struct Reporting<'a, R> {
    file: R,
    position: u64,
    progress: &'a dyn Fn(),
}

impl<R: Read> Read for Reporting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (self.progress)();
        let bytes = self.file.read(buffer)?;
        self.position += bytes as u64;
        Ok(bytes)
    }
}

impl<R: Seek> Seek for Reporting<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;
    use std::io::Cursor;

    /// A file in memory that counts what is done to it.
    pub(crate) struct Counted<'a> {
        pub(crate) bytes: Cursor<&'a [u8]>,
        pub(crate) reads: &'a Cell<u32>,
        pub(crate) seeks: &'a Cell<u32>,
    }

    impl Read for Counted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads.set(self.reads.get() + 1);
            self.bytes.read(buffer)
        }
    }

    impl Seek for Counted<'_> {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.seeks.set(self.seeks.get() + 1);
            self.bytes.seek(to)
        }
    }

    #[test]
    fn it_reads_what_is_there_wherever_it_is_sent() {
        let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let mut reader = BoundedReader::new(Cursor::new(&bytes), &|| {}).expect("it opens");
        for to in [0, 5, 50_000, 49_990, 99_999, 8192, 8191, 3] {
            assert_eq!(reader.seek(SeekFrom::Start(to)).expect("seeks"), to);
            assert_eq!(reader.length().expect("a length"), 100_000);
            let mut one = [0];
            assert!(reader.fill(&mut one).expect("reads"));
            assert_eq!(u64::from(one[0]), to % 251, "at {to}");
            assert_eq!(reader.stream_position().expect("a position"), to + 1);
        }
        assert!(reader.seek(SeekFrom::Current(-5)).is_err(), "before the beginning");
        reader.seek(SeekFrom::End(-1)).expect("seeks");
        assert!(!reader.fill(&mut [0; 2]).expect("reads"), "the end is near");
    }

    #[test]
    fn small_steps_stay_in_the_buffer_and_are_bounded() {
        let (bytes, reads, seeks) = (vec![0; 4 << 20], Cell::new(0), Cell::new(0));
        let file = Counted { bytes: Cursor::new(&bytes), reads: &reads, seeks: &seeks };
        let told = Cell::new(0);
        let progress = || told.set(told.get() + 1);
        let mut reader = BoundedReader::new(file, &progress).expect("it opens");
        let mut steps = 0;
        while reader.fill(&mut [0; 2]).expect("reads") && reader.seek(SeekFrom::Current(2)).is_ok() {
            steps += 1;
        }
        assert_eq!(steps, STEPS_MAX);
        let in_buffers = STEPS_MAX * 4 / 8192;
        assert!(reads.get() <= in_buffers + 2 && seeks.get() <= 2, "{} reads, {} seeks", reads.get(), seeks.get());
        assert_eq!(told.get(), reads.get());
    }
}
