"""The servers of the other tests are real ones: what a mock lets pass, these refuse."""

from __future__ import annotations

import boto3
import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.integration


def test_the_gateway_checks_signatures_and_keeps_objects_over_a_kill(s3, s3_server, new_bucket) -> None:
    bucket = new_bucket()
    s3.put_object(Bucket=bucket, Key="rain", Body=b"1")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        boto3.client("s3", aws_access_key_id=s3_server.access_key, aws_secret_access_key="wrong").list_buckets()
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="rain", Body=b"2", IfNoneMatch="*")
    s3_server.stop()
    s3_server.start()
    assert s3.get_object(Bucket=bucket, Key="rain")["Body"].read() == b"1"
