"""What people call things, as parts of paths."""

from itertools import islice
from urllib.parse import unquote

import pytest

from odd_names import texts
from ray_asd import store


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fan", "fan"),
        ("Line 3, pump +50% (neu) é ポンプ", "Line 3, pump +50% (neu) é ポンプ"),
        ("..", "%2E%2E"),
        ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
        (".hidden", "%2Ehidden"),
        ("v1.", "v1%2E"),
        (" fan ", "%20fan%20"),
        ("a/b\\c", "a%2Fb%5Cc"),
        ("a%2Fb", "a%252Fb"),
        ("two\nlines\t\x00", "two%0Alines%09%00"),
        ('<b>:"|?*', "%3Cb%3E%3A%22%7C%3F%2A"),
        ("\u202efdp", "%E2%80%AEfdp"),
        ("\udcfc", "%ED%B3%BC"),
        ("", "_"),
        ("x" * 100, "x" * 100),
    ],
)
def test_names_by_hand(text: str, expected: str) -> None:
    assert store.file_name(text) == expected


def test_what_is_too_long_ends_in_its_digest() -> None:
    found = [store.file_name(letter * 300) for letter in ("x", "é", "\n", "ポ")]
    assert [len(name.encode()) for name in found] == [100, 99, 100, 100]
    assert all(name[-13] == "~" and name[-12:].isalnum() for name in found)
    assert store.file_name("a" + "\n" * 300)[-14:-13] == "A"  # no code is cut
    assert store.file_name("x" * 300 + "y") != found[0]
    assert store.file_name(found[0]) != found[0]  # of a machine that is called so
    assert store.file_name("x~0123456789ab") == "x%7E0123456789ab"


def test_any_name_is_one_part_of_a_path_and_no_other_names() -> None:
    drawn = list(islice(texts(14), 5000))
    found = {text: store.file_name(text) for text in drawn}
    assert len(set(found.values())) == len(drawn)
    for text, name in found.items():
        assert store.is_file_name(name)
        assert len(name.encode()) <= 100
        assert name.isprintable()
        assert not set(name) & set('/\\<>:"|?*')
        assert not name.startswith((".", " "))
        assert not name.endswith((".", " "))
        assert unquote(name) == text or name[-13] == "~"


def test_storage_takes_them_and_gives_them_back(root: str) -> None:
    names = [store.file_name(text) for text in islice(texts(15), 100)]
    for name in names:
        store.write(store.join(root, name, f"{name}-0123456789ab.json"), name.encode())
    assert store.folders(root) == sorted(names)
    assert sorted(entry.path for entry in store.listing(root)) == sorted(f"{n}/{n}-0123456789ab.json" for n in names)
    assert {store.read(store.join(root, name, store.files(store.join(root, name))[0])) for name in names} == {
        name.encode() for name in names
    }
    for name in names:
        store.remove(store.join(root, name))
    assert list(store.listing(root)) == []


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "/", "../x", "a\0"])
def test_what_leads_elsewhere_is_no_file_name(text: str) -> None:
    assert not store.is_file_name(text)
    assert store.is_file_name(f"{text.replace('/', '').replace(chr(0), '')}x")
