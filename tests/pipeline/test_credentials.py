import pytest

from pipeline.config import Config, Source
from pipeline.credentials import public, restored
from pipeline.errors import BadFile
from pipeline.provenance import command_line

AMAZONS = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=5EC%2Fs3&"
AMAZONS += "X-Amz-Signature=5EC&X-Amz-Expires=9"
GOOGLES = "X-Goog-Signature=5EC&X-Goog-Date=1&GoogleAccessId=5EC"
CLOUDFRONTS = "Expires=99&Signature=5EC__&Key-Pair-Id=5EC&Policy=5EC"
AZURES = "sv=2022-11-02&se=2030-01-01&sp=r&sr=b&sig=5EC%2B5EC%3D"


@pytest.mark.parametrize("signature", [AMAZONS, GOOGLES, CLOUDFRONTS, AZURES, "token=5EC"])
def test_a_signature_is_no_part_of_what_is_recorded(signature: str) -> None:
    assert public(f"https://h/a.jsonl?{signature}") == "https://h/a.jsonl"
    assert public(f"https://h/a.jsonl?v=1&{signature}&b=2#x") == "https://h/a.jsonl?v=1&b=2#x"
    assert public(f"see https://h/a?{signature}: it is gone") == "see https://h/a: it is gone"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:5EC@h:80/a", "http://h:80/a"),
        ("https://5EC@h/a@b", "https://h/a@b"),
        ("s3://key:5EC/@b", "s3://key:5EC/@b"),
        ("s3://key:5EC@b/c", "s3://b/c"),
        ("zip://x.txt::https://u:5EC@h/a.zip", "zip://x.txt::https://h/a.zip"),
    ],
)
def test_users_and_passwords_are_not_recorded(url: str, shown: str) -> None:
    assert public(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        *(
            "abfs://container@account.dfs.core.windows.net/a",
            "sftp://me@h/a",
            "hf://datasets/a@b/c",
        ),
        *("s3://b/part-?.jsonl", "https://h/get?file=a.jsonl&st=1", "https://h/a?download=true#x"),
        *("https://h/a?tokenizer=b&author=c", "gs://b/a", "a/b?token=c", "http://h:80/a:b@c"),
    ],
)
def test_what_is_no_secret_stays(url: str) -> None:
    assert public(url) == url


def test_a_file_is_read_with_the_credentials_that_are_given_now() -> None:
    given = ["a/*", f"https://h/a?{AZURES}", "http://u:5EC@g/b/*", f"https://h/b?{AMAZONS}"]
    for url in (given[1], given[3], "http://u:5EC@g/b/c.jsonl", "https://h/c", "a/b"):
        assert restored(public(url), given) == url


def _config(url: str) -> Config:
    return Config(output="data", sources=[Source(kind="jsonl", paths=[url])])


def test_config_errors_and_command_hold_no_secret() -> None:
    url = f"https://u:5EC@h/a.jsonl?{AMAZONS}"
    config = _config(url)
    assert config.sources[0].paths == [url]
    assert "5EC" not in str(config.content())
    assert config.sha256() == _config(url.replace("5EC", "0FF")).sha256()
    assert config.sha256() == _config("https://h/a.jsonl").sha256()
    assert config.sha256() != _config("https://h/b.jsonl").sha256()
    assert "5EC" not in str(BadFile(f"{url}: cut off"))
    assert "5EC" not in command_line(["python", "--sources", f"[{{paths: ['{url}']}}]"])
