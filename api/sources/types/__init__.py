"""The types of sources: one small file for each, read by the readers of `api.sources.reading`."""

from api.sources.types.base import SourceConfig
from api.sources.types.database import DatabaseConfig
from api.sources.types.file import FileConfig
from api.sources.types.http import HttpConfig
from api.sources.types.s3 import S3Config
from api.sources.types.sftp import SftpConfig

SOURCE_TYPES: dict[str, type[SourceConfig]] = {
    "database": DatabaseConfig,
    "file": FileConfig,
    "http": HttpConfig,
    "s3": S3Config,
    "sftp": SftpConfig,
}
