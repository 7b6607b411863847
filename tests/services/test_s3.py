"""What our S3 server for tests does and refuses, so that code that relies on it relies on what a real one does.

Conditional writes, on 16.2 and 18.2 alike:

* ``PutObject`` with ``If-None-Match: *`` creates an object or answers 412, and of many at once exactly one creates it,
  also if the body takes several stripes (4 MB). This is the one atomic conditional creation that the gateway has.
* It means nothing in a bucket with versions, for ``CompleteMultipartUpload`` and for ``CopyObject``: all of them say
  200 and overwrite, or add a version. So only an object sent in one request can claim a name.
* ``PutObject`` with ``If-Match`` replaces exactly what was read, once, but wants the ETag without its quotes: as it was
  answered, with quotes, it never matches. Who comes second is told 412 or 500. ``DeleteObject`` ignores it.
* The answer 412 does not name the condition, as that of AWS does. So s3fs, in mode "create", raises ``OSError``
  (``EINVAL``) where it raises ``FileExistsError`` with AWS.

Checksums: ``Content-MD5`` and ``X-Amz-Content-Sha256`` are compared with the body, ``x-amz-checksum-*`` are ignored and
not kept. Trailing checksums, which boto sends by itself over HTTPS, are refused by 16.2.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    ConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from tests.services.s3 import Gateway, Served, client, cutting, frozen, killed, refusing, restarted, watched
from tests.services.s3 import bucket as bucket  # fixtures
from tests.services.s3 import rgw as rgw

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:botocore.*")

PART = 5 << 20  # the least that a part may have, unless it is the last
STRIPE = 4 << 20  # of what is larger, the gateway writes the first four megabytes last


def refused(status: int, code: str) -> Any:
    """Expect the server to refuse."""
    return pytest.raises(ClientError, check=lambda error: answer(error) == (status, code))


def answer(error: Exception) -> tuple[int, str]:
    assert isinstance(error, ClientError)
    return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"]["Code"]


def body(s3: Any, bucket: str, key: str) -> Any:
    return s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def keys(s3: Any, bucket: str) -> list[str]:
    return [each["Key"] for each in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def send(
    gateway: Gateway, method: str, path: str, *, data: bytes = b"", digest: str = "", **headers: str
) -> tuple[int, bytes]:
    """Send a request with a digest of our choice, signed; without one it is not signed at all."""
    request = AWSRequest(method=method, url=gateway.endpoint + path, data=data, headers=dict(headers))
    if digest:
        signing = S3SigV4Auth(Credentials(gateway.access_key, gateway.secret_key), "s3", "us-east-1")
        signing.payload = lambda _: digest
        signing.add_auth(request)
    connection = http.client.HTTPConnection(urlsplit(gateway.endpoint).netloc, timeout=10)
    try:
        connection.request(method, path, body=data, headers=dict(request.headers))
        got = connection.getresponse()
        return got.status, got.read()
    finally:
        connection.close()


def upload_in_parts(s3: Any, bucket: str, key: str, parts: list[bytes], **condition: str) -> None:
    upload = {"Bucket": bucket, "Key": key, "UploadId": s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]}
    made = [
        {"PartNumber": number, "ETag": s3.upload_part(**upload, PartNumber=number, Body=part)["ETag"]}
        for number, part in enumerate(parts, 1)
    ]
    s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": made}, **condition)


def race(gateway: Gateway, write: Callable[[Any, int], object], count: int = 8) -> tuple[list[int], list[Any]]:
    """Have some write at the same moment: numbers of those who were told that they have, what the others were told."""
    clients = [client(gateway) for _ in range(count)]
    ready, won, lost = threading.Barrier(count), list[int](), list[Any]()

    def attempt(number: int) -> None:
        ready.wait(10)
        try:
            write(clients[number], number)
        except ClientError as error:
            lost.append(answer(error))
        else:
            won.append(number)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) + len(lost) == count
    return won, lost


def test_signatures_are_verified(rgw: Gateway, bucket: str) -> None:
    client(rgw).put_object(Bucket=bucket, Key="a", Body=b"mine")
    with refused(403, "SignatureDoesNotMatch"):
        client(rgw, secret_key="wrong").get_object(Bucket=bucket, Key="a")
    with refused(403, "SignatureDoesNotMatch"):
        client(rgw, secret_key="wrong").put_object(Bucket=bucket, Key="a", Body=b"theirs")
    stranger = Gateway(rgw.endpoint, "NOBODY", rgw.secret_key, rgw.folder, rgw.version)
    with refused(403, "InvalidAccessKeyId"):
        client(stranger).get_object(Bucket=bucket, Key="a")
    for method in ("GET", "PUT", "DELETE"):
        status, said = send(rgw, method, f"/{bucket}/a")
        assert status == 403
        assert b"AccessDenied" in said
    assert body(client(rgw), bucket, "a") == b"mine"


def test_objects_and_parts_of_them(rgw: Gateway, bucket: str) -> None:
    s3, data = client(rgw), bytes(range(256)) * 40_000
    s3.put_object(Bucket=bucket, Key="folder/a b+ü", Body=data, Metadata={"run": "5001"})
    assert keys(s3, bucket) == ["folder/a b+ü"]
    head = s3.head_object(Bucket=bucket, Key="folder/a b+ü")
    assert (head["ContentLength"], head["Metadata"]) == (len(data), {"run": "5001"})
    assert head["ETag"] == f'"{hashlib.md5(data).hexdigest()}"'
    assert body(s3, bucket, "folder/a b+ü") == data
    for asked, part in {
        "bytes=0-0": data[:1],
        "bytes=4194300-4194309": data[4194300:4194310],
        f"bytes={len(data) - 3}-{len(data) + 100}": data[-3:],
        "bytes=-7": data[-7:],
    }.items():
        got = s3.get_object(Bucket=bucket, Key="folder/a b+ü", Range=asked)
        assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
        assert got["Body"].read() == part
    with refused(416, "InvalidRange"):
        s3.get_object(Bucket=bucket, Key="folder/a b+ü", Range=f"bytes={len(data)}-")
    with refused(404, "NoSuchKey"):
        s3.get_object(Bucket=bucket, Key="b")
    with refused(404, "NoSuchBucket"):
        s3.get_object(Bucket=f"{bucket}-no", Key="b")


def test_an_upload_in_parts_is_there_when_it_is_complete(rgw: Gateway, bucket: str) -> None:
    s3, parts = client(rgw), [b"a" * PART, b"b" * PART, b"c"]
    upload = {"Bucket": bucket, "Key": "a", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="a")["UploadId"]}
    s3.upload_part(**upload, PartNumber=1, Body=parts[0])
    assert keys(s3, bucket) == []
    s3.abort_multipart_upload(**upload)
    with refused(404, "NoSuchUpload"):
        s3.upload_part(**upload, PartNumber=2, Body=parts[1])
    with refused(400, "EntityTooSmall"):
        upload_in_parts(s3, bucket, "a", [b"small", b"last"])
    assert keys(s3, bucket) == []
    upload_in_parts(s3, bucket, "a", parts)
    assert body(s3, bucket, "a") == b"".join(parts)
    digests = b"".join(hashlib.md5(part).digest() for part in parts)
    assert s3.head_object(Bucket=bucket, Key="a")["ETag"] == f'"{hashlib.md5(digests).hexdigest()}-3"'
    got = s3.get_object(Bucket=bucket, Key="a", Range=f"bytes={PART - 2}-{PART + 1}")
    assert got["Body"].read() == b"aabb"


@pytest.mark.parametrize(("size", "rounds"), [(1, 10), (STRIPE + 1, 1)])
def test_of_many_conditional_creations_exactly_one_wins(rgw: Gateway, bucket: str, size: int, rounds: int) -> None:
    s3 = client(rgw)
    for key in map(str, range(rounds)):

        def create(one: Any, number: int, key: str = key) -> None:
            one.put_object(Bucket=bucket, Key=key, Body=b"%d" % number * size, IfNoneMatch="*")

        (first,), lost = race(rgw, create)
        assert set(lost) == {(412, "PreconditionFailed")}
        assert body(s3, bucket, key) == b"%d" % first * size
        with refused(412, "PreconditionFailed"):
            create(s3, 9)
    s3.delete_object(Bucket=bucket, Key="0")
    s3.put_object(Bucket=bucket, Key="0", Body=b"again", IfNoneMatch="*")


def test_uploads_in_parts_and_copies_do_not_heed_the_condition(rgw: Gateway, bucket: str) -> None:
    s3 = client(rgw)
    s3.put_object(Bucket=bucket, Key="a", Body=b"first")
    upload_in_parts(s3, bucket, "a", [b"second"], IfNoneMatch="*")
    assert body(s3, bucket, "a") == b"second"
    s3.put_object(Bucket=bucket, Key="b", Body=b"third")
    s3.copy_object(Bucket=bucket, Key="a", CopySource={"Bucket": bucket, "Key": "b"}, IfNoneMatch="*")
    assert body(s3, bucket, "a") == b"third"


def test_buckets_with_versions_do_not_heed_the_condition(rgw: Gateway, bucket: str) -> None:
    s3 = client(rgw)
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    won, _ = race(rgw, lambda one, number: one.put_object(Bucket=bucket, Key="a", Body=b"%d" % number, IfNoneMatch="*"))
    assert len(won) == 8
    assert len(s3.list_object_versions(Bucket=bucket)["Versions"]) == 8
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    s3.put_object(Bucket=bucket, Key="b", Body=b"first", IfNoneMatch="*")
    with refused(412, "PreconditionFailed"):
        s3.put_object(Bucket=bucket, Key="b", Body=b"second", IfNoneMatch="*")


def test_if_match_wants_the_etag_without_quotes(rgw: Gateway, bucket: str) -> None:
    s3 = client(rgw)
    etag = s3.put_object(Bucket=bucket, Key="a", Body=b"first")["ETag"]
    for wrong in (etag, hashlib.md5(b"other").hexdigest()):
        with refused(412, "PreconditionFailed"):
            s3.put_object(Bucket=bucket, Key="a", Body=b"second", IfMatch=wrong)
    read = etag.strip('"')
    (first,), lost = race(
        rgw, lambda one, number: one.put_object(Bucket=bucket, Key="a", Body=b"%d" % number, IfMatch=read)
    )
    assert set(lost) <= {(412, "PreconditionFailed"), (500, "UnknownError")}
    assert body(s3, bucket, "a") == b"%d" % first
    s3.delete_object(Bucket=bucket, Key="a", IfMatch=etag)
    assert keys(s3, bucket) == []


def test_a_presigned_url_works_until_it_expires(rgw: Gateway, bucket: str) -> None:
    s3 = client(rgw, signature_version="s3v4")
    s3.put_object(Bucket=bucket, Key="a", Body=b"mine")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a"}, ExpiresIn=2)
    path = url.removeprefix(rgw.endpoint)
    assert send(rgw, "GET", path) == (200, b"mine")
    assert send(rgw, "GET", path.replace("/a?", "/b?"))[0] == 403
    assert send(rgw, "PUT", path, data=b"theirs")[0] == 403
    time.sleep(3)
    assert send(rgw, "GET", path)[0] == 403
    url = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "b"}, ExpiresIn=60)
    assert send(rgw, "PUT", url.removeprefix(rgw.endpoint), data=b"by url")[0] == 200
    assert body(s3, bucket, "b") == b"by url"


def test_a_body_that_is_not_what_was_announced_is_refused(rgw: Gateway, bucket: str) -> None:
    s3, other = client(rgw), b"other"
    s3.put_object(Bucket=bucket, Key="a", Body=b"before")
    with refused(400, "BadDigest"):
        s3.put_object(
            Bucket=bucket, Key="a", Body=b"hello", ContentMD5=base64.b64encode(hashlib.md5(other).digest()).decode()
        )
    status, said = send(rgw, "PUT", f"/{bucket}/a", data=b"hello", digest=hashlib.sha256(other).hexdigest())
    assert status == 400
    assert b"XAmzContentSHA256Mismatch" in said
    upload = {"Bucket": bucket, "Key": "b", "UploadId": s3.create_multipart_upload(Bucket=bucket, Key="b")["UploadId"]}
    with refused(400, "BadDigest"):
        s3.upload_part(
            **upload, PartNumber=1, Body=b"x", ContentMD5=base64.b64encode(hashlib.md5(other).digest()).decode()
        )
    assert body(s3, bucket, "a") == b"before"


def test_checksums_of_newer_clients_are_ignored(rgw: Gateway, bucket: str) -> None:
    s3 = client(rgw)
    for name, length in {"CRC32": 4, "CRC32C": 4, "CRC64NVME": 8, "SHA1": 20, "SHA256": 32}.items():
        wrong = base64.b64encode(bytes(length)).decode()
        made = s3.put_object(Bucket=bucket, Key=name, Body=b"hello", **{f"Checksum{name}": wrong})
        found = s3.head_object(Bucket=bucket, Key=name, ChecksumMode="ENABLED")
        assert not [key for key in {**made, **found} if key.startswith("Checksum")]
        assert body(s3, bucket, name) == b"hello"


def test_trailing_checksums_need_a_newer_gateway(rgw: Gateway, bucket: str) -> None:
    """boto sends uploads like this over HTTPS, unless ``request_checksum_calculation`` is "when_required"."""
    crc = base64.b64encode(zlib.crc32(b"hello").to_bytes(4, "big"))
    headers = {
        "Content-Encoding": "aws-chunked",
        "X-Amz-Decoded-Content-Length": "5",
        "X-Amz-Trailer": "x-amz-checksum-crc32",
    }
    data = b"5\r\nhello\r\n0\r\nx-amz-checksum-crc32:" + crc + b"\r\n\r\n"
    status, _ = send(rgw, "PUT", f"/{bucket}/a", data=data, digest="STREAMING-UNSIGNED-PAYLOAD-TRAILER", **headers)
    if rgw.release < (17, 0):
        assert status == 400
        assert keys(client(rgw), bucket) == []
    else:
        assert status == 200
        assert body(client(rgw), bucket, "a") == b"hello"


def test_s3fs_writes_lists_reads_and_removes(rgw: Gateway, bucket: str) -> None:
    import s3fs

    files = s3fs.S3FileSystem(**rgw.storage_options, skip_instance_cache=True)
    files.pipe({f"{bucket}/run/{number}": b"%d" % number * 1000 for number in range(20)})
    with files.open(f"{bucket}/large", "wb", block_size=PART) as file:
        file.write(b"x" * (2 * PART + 1))
    assert len(files.find(bucket)) == 21
    assert files.info(f"{bucket}/large")["size"] == 2 * PART + 1
    with watched(rgw) as served:
        assert files.cat_file(f"{bucket}/run/7", start=10, end=20) == b"7" * 10
    assert served == [Served("GET", f"/{bucket}/run/7", "bytes=10-19", 206, 10)]
    with pytest.raises(FileNotFoundError):
        files.cat_file(f"{bucket}/run/20")
    files.rm(f"{bucket}/run", recursive=True)
    assert files.find(bucket) == [f"{bucket}/large"]
    stranger = s3fs.S3FileSystem(**{**rgw.storage_options, "secret": "wrong"}, skip_instance_cache=True)
    with pytest.raises(PermissionError):
        stranger.cat_file(f"{bucket}/large", start=0, end=1)


def test_s3fs_claims_a_name_with_one_request_and_does_not_say_so(rgw: Gateway, bucket: str) -> None:
    import s3fs

    files = s3fs.S3FileSystem(**rgw.storage_options, skip_instance_cache=True)
    files.pipe_file(f"{bucket}/a", b"first", mode="create")
    with pytest.raises(OSError) as caught:
        files.pipe_file(f"{bucket}/a", b"second", mode="create")
    assert (type(caught.value), caught.value.errno) == (OSError, errno.EINVAL)
    assert files.cat_file(f"{bucket}/a") == b"first"
    files.pipe_file(f"{bucket}/a", b"third" * PART, mode="create", chunksize=PART)  # which is an upload in parts
    assert files.info(f"{bucket}/a")["size"] == 5 * PART


def test_a_frozen_gateway_answers_when_it_thaws(rgw: Gateway, bucket: str) -> None:
    s3 = client(rgw, read_timeout=0.5)
    s3.put_object(Bucket=bucket, Key="a", Body=b"before")
    with frozen(rgw), pytest.raises(ReadTimeoutError):
        s3.get_object(Bucket=bucket, Key="a")
    assert body(client(rgw), bucket, "a") == b"before"


def test_a_killed_gateway_loses_nothing(rgw: Gateway, bucket: str) -> None:
    s3 = client(rgw)
    s3.put_object(Bucket=bucket, Key="a", Body=b"x" * (STRIPE + 1))
    with killed(rgw), pytest.raises(ConnectionError):
        client(rgw).get_object(Bucket=bucket, Key="a")
    assert body(client(rgw), bucket, "a") == b"x" * (STRIPE + 1)
    assert restarted(rgw) is rgw
    assert body(client(rgw), bucket, "a") == b"x" * (STRIPE + 1)


@pytest.mark.parametrize("after", [0, 1000, STRIPE + 100])
def test_an_upload_that_is_cut_leaves_what_was_there(rgw: Gateway, bucket: str, after: int) -> None:
    s3, data = client(rgw), b"new" * STRIPE
    s3.put_object(Bucket=bucket, Key="old", Body=b"old")
    with cutting(rgw, after) as between:
        for key in ("old", "new"):
            with pytest.raises((ConnectionError, HTTPClientError)):
                client(between).put_object(Bucket=bucket, Key=key, Body=data)
        assert body(client(between), bucket, "old") == b"old"
    with cutting(rgw, after, times=1) as between:
        retrying = client(between, retries={"total_max_attempts": 3})
        retrying.put_object(Bucket=bucket, Key="new", Body=data, IfNoneMatch="*")
    assert (body(s3, bucket, "old"), body(s3, bucket, "new")) == (b"old", data)


def test_a_gateway_that_is_busy_is_asked_again(rgw: Gateway, bucket: str) -> None:
    with refusing(rgw, 2) as between:
        with refused(503, "SlowDown"):
            client(between).put_object(Bucket=bucket, Key="a", Body=b"x" * 100_000)
        client(between, retries={"total_max_attempts": 3}).put_object(Bucket=bucket, Key="a", Body=b"y" * 100_000)
        client(between).put_object(Bucket=bucket, Key="b", Body=b"z")
        assert body(client(between), bucket, "a") == b"y" * 100_000
    with refusing(rgw, 1) as between, refused(503, "SlowDown"):
        client(between).get_object(Bucket=bucket, Key="a")
