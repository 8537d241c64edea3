"""What the manifest knows: equal to a dictionary, whatever is listed in what order."""

from hypothesis import given
from hypothesis import strategies as st

from dicomdask.model import SourceFile
from dicomdask.tasks.index import part_files
from dicomdask.tasks.known import Known

files = st.builds(
    SourceFile,
    url=st.sampled_from([f"/in/{n}" for n in range(9)]),
    size=st.just(1),
    etag=st.sampled_from("abc"),
)
batches = st.lists(st.lists(files, max_size=9, unique_by=lambda one: one.url))


@given(batches, batches)
def test_it_is_a_dictionary_of_urls(before, listed):
    known = Known(before)
    wanted = {one.url: one.etag for batch in before for one in batch}
    for batch in listed:
        fresh, changed = known.compare(batch)
        assert fresh == [one for one in batch if one.url not in wanted]
        assert changed == [
            one for one in batch if wanted.get(one.url, one.etag) != one.etag
        ]
        wanted |= {one.url: one.etag for one in batch}


def test_what_is_listed_twice_at_once_is_one():
    one = SourceFile("/in/1", 1, "a")
    assert Known().compare([one, one]) == ([one], [])


def test_a_hundred_million_files_are_few_parts():
    left, n_parts = 100_000_000, 0
    while left > 0:
        left -= part_files(n_parts)
        n_parts += 1
    assert n_parts < 25_000
