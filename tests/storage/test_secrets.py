from __future__ import annotations

import pytest

from storage.secrets import has_password, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@host/a.mp4", "https://***@host/a.mp4"),
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("see https://h/a?X-Signature=secret, it is gone.", "see https://h/a?***, it is gone."),
        ("url='https://h/a?token=secret'", "url='https://h/a?***'"),
        ("two: http://a:b@c/d?e=f http://g?h=i", "two: http://***@c/d?*** http://g?***"),
        ("a@b and https://host/a@b.mp4", "a@b and https://host/a@b.mp4"),
        ("nothing", "nothing"),
    ],
)
def test_passwords_and_queries_of_urls_are_left_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_a_password_is_found_in_the_host_alone() -> None:
    assert has_password("https://me@host/a")
    assert not has_password("https://host/a@b")
