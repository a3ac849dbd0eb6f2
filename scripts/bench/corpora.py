"""The files that are downloaded, and whether they arrived."""

import hashlib
import os
import random
from pathlib import Path

# name -> (files, median bytes, spread of the lognormal distribution; 0: all the same)
CORPORA = {"small": (20_000, 3_800, 0.0), "web": (8_000, 55_000, 0.6), "large": (100, 7_000_000, 0.1)}

GIF_HEAD = b"GIF89a\x20\0\x10\0\0\0\0"


class Corpus:
    """Files that begin like a GIF and go on at random, N.gif in a folder of the corpus' name: nothing decodes or compresses them."""

    def __init__(self, name, root, divide):
        files, median, spread = CORPORA[name]
        self.name, self.files = name, max(1, files // divide)
        self.folder = Path(root) / name
        self.folder.mkdir(parents=True)
        chance = random.Random(name)
        noise = chance.randbytes(32 << 20)
        hashes = []
        for n in range(self.files):
            size = max(200, int(median * chance.lognormvariate(0, spread))) if spread else median
            start = chance.randrange(len(noise) - size)
            body = GIF_HEAD + n.to_bytes(8, "little") + noise[start : start + size - len(GIF_HEAD) - 9] + b";"
            (self.folder / f"{n}.gif").write_bytes(body)
            hashes.append(hashlib.sha256(body).hexdigest())
        self.hashes = sorted(hashes)

    def urls(self, base):
        return [f"{base}/{self.name}/{n}.gif" for n in range(self.files)]


def wrong(hashes, output):
    """What is wrong with the files below a folder, whatever the tool called them; None when nothing is."""
    found = []
    for folder, _, names in os.walk(output):
        if ".imgq-tmp" in folder:
            continue
        for name in names:
            # What img2dataset and aria2c write beside the files.
            if not name.endswith((".json", ".parquet", ".aria2")):
                found.append(hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest())
    if sorted(found) == hashes:
        return None
    return f"stored {len(found):,} files, {len(set(found) & set(hashes)):,} of {len(hashes):,} as they were served"
