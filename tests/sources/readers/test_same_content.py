"""One file, wherever it is read from."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from spine.egress.paths import FileRoots
from spine.sources.readers.base import Reader
from spine.sources.readers.file import FileReader

from tests.sources.readers.sftp_server import PASSWORD, USER, sftp_server
from tests.sources.readers.support import OPEN, config_of, limits, read_one, settle
from tests.sources.readers.test_s3 import KEYS, endpoint, store
from tests.support.receivers import receiver, refuse
from tests.support.weekly_files import PAIRS, WeeklyFile

__all__ = ["endpoint", "store"]


def hash_of(reader: Reader, name: str) -> str:
    item, content = read_one(reader)
    assert item.name == name
    assert item.validators.size == len(content)
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("weekly", [pair[0] for pair in PAIRS], ids=lambda weekly: weekly.name)
def test_a_weekly_file_is_the_same_as_file_http_s3_and_sftp(
    endpoint: str, store: Any, tmp_path: Path, weekly: WeeklyFile
) -> None:
    content, name = weekly.content, weekly.name
    settle(weekly.write(tmp_path))
    store.put_object(Bucket="desk", Key=f"{weekly.week}/{name}", Body=content)
    s3 = config_of("s3", bucket="desk", key=f"{weekly.week}/*", endpoint_url=endpoint, **dict.fromkeys(KEYS, "env:X"))
    hashes = [
        hash_of(FileReader(name, FileRoots([tmp_path]), limits()), name),
        hash_of(s3.open_reader(KEYS, OPEN, limits()), name),
    ]
    with receiver() as site:
        site.always = refuse(200, content)
        url = f"http://127.0.0.1:{site.port}/{name}"
        hashes.append(hash_of(config_of("http", url=url).open_reader({}, OPEN, limits()), name))
    with sftp_server(tmp_path) as server:
        login = {"username": USER, "password_ref": "env:PW", "host_key": server.public_key}
        sftp = config_of("sftp", host="127.0.0.1", port=server.port, path=f"/{name}", **login)
        hashes.append(hash_of(sftp.open_reader({"password_ref": PASSWORD}, OPEN, limits()), name))
    assert hashes == [weekly.sha256] * 4
