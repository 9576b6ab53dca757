"""The size check, and the search for the largest packet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, fragment

from ipsecctl.probe import Outcome
from ipsecctl.probe.sizes import next_sizes, settled, size_check


def check(world, **changes):
    return size_check(world.path(), world.evidence(**changes))


def test_exact_size_and_the_right_answer_hold(world):
    world.send_steady()
    world.carry(world.send_size(world.path(), 1400))
    world.too_big(world.send_size(world.path(), 1401), 1400)
    result = check(world)
    assert result[:3] == (Outcome.HOLDS, 1400, 1400)
    assert result.evidence == '1400 passes, 1401 does not; 10.1.0.1: "fragmentation needed", MTU 1400'
    assert settled(world.path(), 1400, world.evidence())


def test_a_wrong_mtu_in_the_answer_fails(world):
    world.carry(world.send_size(world.path(), 1400))
    world.too_big(world.send_size(world.path(), 1401), 1500)
    assert check(world)[0] is Outcome.FAILS
    assert "MTU 1500" in check(world).evidence


def test_no_answer_is_a_black_hole(world):
    world.carry(world.send_size(world.path(), 1400))
    world.send_size(world.path(), 1401)
    assert check(world)[0] is Outcome.FAILS
    assert "a black hole" in check(world).evidence


def test_an_answer_that_the_capture_may_have_lost_proves_nothing(world):
    world.carry(world.send_size(world.path(), 1400))
    world.send_size(world.path(), 1401)
    world.recordings[world.path().source.tap].dropped = 1
    assert check(world)[0] is Outcome.COULD_NOT_RUN


def test_a_smaller_path_says_how_much_smaller(world):
    for size in (576, 1392):
        world.carry(world.send_size(world.path(), size))
    for size in (1393, 1400, 1401):
        world.too_big(world.send_size(world.path(), size), 1392)
    result = check(world)
    assert result[:3] == (Outcome.FAILS, 1400, 1392)
    assert "computed 1400 (the test says so), measured 1392" in result.evidence
    assert not settled(world.path(), 1400, world.evidence())


def test_a_larger_path_fails_too(world):
    for size in (1400, 1401, 1438):
        world.carry(world.send_size(world.path(), size))
    world.send_size(world.path(), 1439)
    assert check(world)[:3] == (Outcome.FAILS, 1400, 1438)
    assert "1439 vanishes without" in check(world).evidence


def test_esp_in_fragments_does_not_count_as_passing(world):
    path = world.path()
    for size in (1300, 1400):
        probe = world.send_size(path, size)
        world.carry(probe)
    for part in fragment(world.esp(path, 1400), 1272):
        world.hear(world.evidence().links["gw-south"].far, IP(bytes(part)))
    world.too_big(world.send_size(path, 1401), 1400)
    result = check(world)
    assert result[:3] == (Outcome.FAILS, 1400, 1300)
    assert "1400 crosses the WAN only with its ESP in fragments" in result.evidence


def test_nothing_passing_at_all_is_another_checks_failure(world):
    for size in (576, 1400, 1401):
        world.send_size(world.path(), size)
    assert check(world)[0] is Outcome.COULD_NOT_RUN


def test_without_a_computed_size_there_is_nothing_to_compare(world):
    assert check(world, expected=None)[0] is Outcome.COULD_NOT_RUN


def test_a_host_that_cannot_send_that_size(world):
    probes = [world.send_size(world.path(), size) for size in (1400, 1401)]
    world.unsent = {probes[1].serial: "north-lan: Message too long"}
    assert check(world)[::3] == (Outcome.COULD_NOT_RUN, "north-lan: Message too long")


@given(low=st.integers(68, 9000), gap=st.integers(1, 3000), data=st.data())
def test_the_search_finds_the_byte_in_a_few_rounds(low, gap, data):
    high = low + gap
    largest = data.draw(st.integers(low, high - 1))
    for _ in range(4):
        sizes = next_sizes(low, high)
        assert sizes == sorted(set(sizes))
        assert all(low < size < high for size in sizes)
        if not sizes:
            break
        low = max([low, *(s for s in sizes if s <= largest)])
        high = min([high, *(s for s in sizes if s > largest)])
    assert (low, high) == (largest, largest + 1)


@pytest.mark.parametrize(("low", "high"), [(1400, 1401), (1400, 1400), (1401, 1400)])
def test_nothing_to_search_between_neighbours(low, high):
    assert next_sizes(low, high) == []
