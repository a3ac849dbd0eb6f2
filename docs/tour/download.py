#!/usr/bin/env python3
"""Downloads the pictures of Imgur's random gallery in four ways, each a little further than the one before.

    python3 docs/tour/download.py loop|processes|pool|functions [PAGES]
    python3 docs/tour/download.py links [PAGES]            only prints the links

docs/tour.md says what each of them teaches, and goes on from there. It needs IMGUR_CLIENT_ID; IMGUR_API_URL leads it to the simulator.
"""

import hashlib
import json
import os
import sys
import time
import urllib.request
from multiprocessing import Pool, Process
from pathlib import Path

API = os.environ.get("IMGUR_API_URL", "https://api.imgur.com")
FOLDER = Path("pictures")


def links_of(page):
    headers = {"Authorization": "Client-ID " + os.environ["IMGUR_CLIENT_ID"]}
    request = urllib.request.Request(f"{API}/3/gallery/random/random/{page}", headers=headers)
    with urllib.request.urlopen(request) as answer:
        items = json.load(answer)["data"]
    return [item["link"] for item in items if not item["is_album"] and item["type"].startswith("image/")]


def download(link):
    picture = FOLDER / link.rsplit("/", 1)[1]
    with urllib.request.urlopen(link) as answer:
        picture.write_bytes(answer.read())
    return picture


def digest(picture):
    return hashlib.sha256(picture.read_bytes()).hexdigest()


def in_one_loop(pages):
    for page in pages:
        for link in links_of(page):
            download(link)


def a_process_for_each_link(pages):
    links = [link for page in pages for link in links_of(page)]
    processes = [Process(target=download, args=(link,)) for link in links]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def a_pool_of_eight(pages):
    links = [link for page in pages for link in links_of(page)]
    with Pool(8) as pool:
        pool.map(download, links, chunksize=1)


def several_functions_in_one_pool(pages):
    with Pool(8) as pool:
        lists = [pool.apply_async(links_of, (page,)) for page in pages]
        pictures = [pool.apply_async(download, (link,)) for links in lists for link in links.get()]
        digests = [pool.apply_async(digest, (picture.get(),)) for picture in pictures]
        print(len({digest.get() for digest in digests}), "different ones among them")


WAYS = {
    "loop": in_one_loop,
    "processes": a_process_for_each_link,
    "pool": a_pool_of_eight,
    "functions": several_functions_in_one_pool,
}


def main():
    way = sys.argv[1] if len(sys.argv) > 1 else "loop"
    pages = range(int(sys.argv[2]) if len(sys.argv) > 2 else 8)
    if way == "links":
        print(*[link for page in pages for link in links_of(page)], sep="\n")
        return
    FOLDER.mkdir(exist_ok=True)
    started = time.perf_counter()
    WAYS[way](pages)
    print(f"Took {time.perf_counter() - started:.2f} s: {len(list(FOLDER.iterdir()))} pictures in {FOLDER}")


if __name__ == "__main__":
    main()
