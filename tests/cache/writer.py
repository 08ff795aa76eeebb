"""A process that publishes one content after another in the store of a home, until it is killed."""

import os
import sys
from pathlib import Path

from spine.cache.store import BlobStore
from spine.settings import Settings


def main() -> None:
    store = BlobStore.from_settings(Settings(home=Path(sys.argv[1])))
    while True:
        file = store.stage()
        for _ in range(8):
            file.write(os.urandom(1024 * 1024))
        store.publish(file)
        file.discard()


if __name__ == "__main__":
    main()
