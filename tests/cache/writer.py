"""A process that puts one content after the other into the store of a home, until it is killed."""

import os
import sys
from pathlib import Path

from spine.cache.store import BlobStore
from spine.settings import Settings


def main() -> None:
    store = BlobStore.of(Settings(home=Path(sys.argv[1])))
    while True:
        part = store.begin()
        for _ in range(8):
            part.write(os.urandom(1024 * 1024))
        store.publish(part)
        part.discard()


if __name__ == "__main__":
    main()
