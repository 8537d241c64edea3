"""An S3 endpoint with its credentials, whatever server is behind it."""

import secrets
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from botocore.config import Config
from botocore.session import Session

REGION = "us-east-1"


@cache
def _session() -> Session:
    """Return the one session: what it reads of AWS takes long to read."""
    return Session()


@cache
def _client(server: "S3") -> Any:
    return server.client()


@dataclass(frozen=True)
class S3:
    """Where an S3 server is and who may use it."""

    endpoint: str
    key: str
    secret: str

    def client(self) -> Any:
        """Return a client that tries once and takes nothing from the environment."""
        return _session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 1},
                max_pool_connections=32,
                proxies={},
            ),
        )

    def make_bucket(self, prefix: str = "test") -> str:
        """Make a bucket with a new name; return the name."""
        name = f"{prefix}-{secrets.token_hex(6)}"
        _client(self).create_bucket(Bucket=name)
        return name

    def at(self, endpoint: str) -> "S3":
        """Return the same server behind another endpoint, such as a proxy."""
        return replace(self, endpoint=endpoint)

    def environment(self) -> dict[str, str]:
        """Return the variables that lead any S3 client to this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }
