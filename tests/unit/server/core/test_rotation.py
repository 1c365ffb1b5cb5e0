"""Each rule of rotation at its edges; and a victim and a thief in any order, with a moving clock."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from unbroken.errors import ConfigurationError
from unbroken.server.core.rotation import Policy, PresentedToken, SessionRow, Verdict, present

POLICY = Policy(access_ttl=60, refresh_ttl=1000, max_age=5000, grace=10)
NO_GRACE = replace(POLICY, grace=0.0)
NOW = 100.0


def row(**fields: Any) -> SessionRow:
    given = {
        "generation": 5,
        "branch": 0,
        "rotated_at": 90.0,
        "promoted_branch": 0,
        "previous_rotated_at": 50.0,
        "previous_promoted_branch": 0,
        "idempotency_hash": b"a",
        **fields,
    }
    return SessionRow(b"key", "sid", "ada", 0.0, 0.0, 1000.0, 5000.0, **given)


def test_r0_a_dead_row_refuses_and_is_not_written() -> None:
    for dead in (row(revoked_at=1.0), replace(row(), idle_expires_at=NOW), replace(row(), expires_at=NOW)):
        assert present(dead, PresentedToken(5, 0), NOW, POLICY) == (dead, Verdict.DEAD)
    alive = replace(row(), idle_expires_at=NOW + 0.001)
    assert present(alive, PresentedToken(5, 0), NOW, POLICY)[1] is Verdict.ROTATED


def test_r1_rotates_and_remembers_who_did() -> None:
    after, verdict = present(row(), PresentedToken(5, 0, b"b"), NOW, POLICY)
    assert verdict is Verdict.ROTATED
    assert (
        after.generation,
        after.branch,
        after.rotated_at,
        after.promoted_branch,
        after.previous_rotated_at,
        after.previous_promoted_branch,
    ) == (6, 0, NOW, 0, 90.0, 0)
    assert (after.idempotency_hash, after.first_used_branch, after.idle_expires_at) == (b"b", None, NOW + 1000)


def test_r1_never_outlives_the_absolute_expiry() -> None:
    after, _ = present(replace(row(), expires_at=NOW + 5), PresentedToken(5, 0), NOW, POLICY)
    assert after.idle_expires_at == NOW + 5


def test_r1_any_sibling_may_be_promoted_until_one_was_seen() -> None:
    assert present(row(branch=2), PresentedToken(5, 1), NOW, POLICY)[1] is Verdict.ROTATED
    assert present(row(branch=2, first_used_branch=1), PresentedToken(5, 1), NOW, POLICY)[1] is Verdict.ROTATED
    assert present(row(branch=2, first_used_branch=2), PresentedToken(5, 1), NOW, POLICY)[1] is Verdict.REUSED


def test_r1_a_coordinated_session_goes_on_from_its_newest_or_its_used_branch() -> None:
    coordinated = row(coordinated=True, branch=2)
    assert present(coordinated, PresentedToken(5, 2), NOW, POLICY)[1] is Verdict.ROTATED
    assert present(coordinated, PresentedToken(5, 1), NOW, POLICY)[1] is Verdict.REUSED
    assert present(replace(coordinated, first_used_branch=1), PresentedToken(5, 1), NOW, POLICY)[1] is Verdict.ROTATED


HOME, ELSEWHERE, IPV6 = "203.0.113.0/24 curl", "198.51.100.0/24 curl", "2001:db8::/64 curl"


def test_r5_a_fifth_generation_in_a_row_may_not_be_shared() -> None:
    shared = row(presenter=HOME, rotated_at=95.0, shared_streak=3)
    after, verdict = present(shared, PresentedToken(4, 0, party=ELSEWHERE), NOW, POLICY)
    assert (verdict, after.shared) == (Verdict.CONVERGED, True)
    assert present(after, PresentedToken(5, 0, party=HOME), NOW, POLICY)[0].shared_streak == 4
    full = replace(shared, shared_streak=4)
    assert present(full, PresentedToken(4, 0, party=ELSEWHERE), NOW, POLICY)[1] is Verdict.REUSED
    for party in (HOME, IPV6, ""):
        assert present(full, PresentedToken(4, 0, party=party), NOW, POLICY) == (full, Verdict.CONVERGED)
    never = replace(POLICY, max_shared_generations=None)
    assert present(full, PresentedToken(4, 0, party=ELSEWHERE), NOW, never)[1] is Verdict.CONVERGED


@pytest.mark.parametrize(("rotated_at", "streak"), [(95.0, 3), (90.0, 0), (None, 0)])
def test_r5_only_a_generation_of_more_than_the_grace_resets_the_count(rotated_at: float | None, streak: int) -> None:
    after, _ = present(row(rotated_at=rotated_at, shared_streak=3), PresentedToken(5, 0), NOW, POLICY)
    assert after.shared_streak == streak


def test_r3_a_key_that_made_two_generations_retries_nothing() -> None:
    after, _ = present(row(), PresentedToken(5, 0, b"a"), NOW, POLICY)
    late = replace(after, rotated_at=1.0, first_used_branch=0)
    assert present(late, PresentedToken(5, 0, b"a"), NOW, POLICY)[1] is Verdict.REUSED


def test_a_policy_may_take_every_suspicion_for_reuse() -> None:
    strict = replace(POLICY, on_suspicion="revoke")
    recent, late = row(presenter=HOME, rotated_at=95.0), row(presenter=HOME, rotated_at=1.0)
    assert present(recent, PresentedToken(4, 0, party=HOME), NOW, strict)[1] is Verdict.CONVERGED
    assert present(recent, PresentedToken(4, 0, party=IPV6), NOW, strict)[1] is Verdict.CONVERGED
    assert present(recent, PresentedToken(4, 0, party=ELSEWHERE), NOW, strict)[1] is Verdict.REUSED
    assert present(late, PresentedToken(4, 0, party=HOME), NOW, strict)[1] is Verdict.REUSED


@pytest.mark.parametrize(
    "wrong", [{"max_shared_generations": -1}, {"max_shared_generations": True}, {"on_suspicion": "x"}]
)
def test_a_policy_checks_what_suspicion_leads_to(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Policy(**wrong)


def test_r1h_a_store_that_lost_writes_is_healed() -> None:
    after, verdict = present(row(first_used_branch=0), PresentedToken(9, 1, b"b"), NOW, POLICY)
    assert verdict is Verdict.HEALED
    assert (
        after.generation,
        after.branch,
        after.promoted_branch,
        after.previous_rotated_at,
        after.first_used_branch,
    ) == (10, 0, 1, None, None)


@pytest.mark.parametrize(("at", "verdict"), [(90.001, Verdict.CONVERGED), (90.0, Verdict.BRANCHED)])
def test_r2_converges_for_less_than_the_grace(at: float, verdict: Verdict) -> None:
    assert present(row(rotated_at=at), PresentedToken(4, 0), NOW, POLICY)[1] is verdict


def test_r2_also_for_the_generation_before() -> None:
    assert present(row(previous_rotated_at=95.0), PresentedToken(3, 0), NOW, POLICY) == (
        row(previous_rotated_at=95.0),
        Verdict.CONVERGED,
    )
    assert (
        present(row(previous_rotated_at=95.0, previous_promoted_branch=1), PresentedToken(3, 0), NOW, POLICY)[1]
        is Verdict.REUSED
    )


def test_r2_does_not_exist_for_coordinated_sessions() -> None:
    coordinated = row(coordinated=True, rotated_at=NOW, first_used_branch=0)
    assert present(coordinated, PresentedToken(4, 0), NOW, POLICY)[1] is Verdict.REUSED


def test_r2_a_clock_that_is_behind_forgives_no_more_than_one_that_is_right() -> None:
    used = row(rotated_at=NOW, first_used_branch=0)
    assert present(used, PresentedToken(4, 0), NOW - 9.9, POLICY)[1] is Verdict.CONVERGED
    assert present(used, PresentedToken(4, 0), NOW - 10, POLICY)[1] is Verdict.REUSED


@pytest.mark.parametrize("behind", [0.0, 0.1, 99.0])
def test_r2_a_window_of_no_seconds_is_empty_at_any_clock(behind: float) -> None:
    for used, policy in (
        (row(coordinated=True, rotated_at=NOW, first_used_branch=0), POLICY),
        (row(rotated_at=NOW, first_used_branch=0), NO_GRACE),
    ):
        assert present(used, PresentedToken(4, 0), NOW - behind, policy)[1] is Verdict.REUSED


def test_r3_the_same_idempotency_key_gets_the_same_response_however_late() -> None:
    late = row(rotated_at=1.0, first_used_branch=0)
    assert present(late, PresentedToken(4, 0, b"a"), NOW, POLICY) == (late, Verdict.RETRIED)


def test_r3_no_idempotency_key_is_not_the_same_key() -> None:
    assert (
        present(
            row(rotated_at=1.0, idempotency_hash=None, first_used_branch=0), PresentedToken(4, 0, None), NOW, POLICY
        )[1]
        is Verdict.REUSED
    )


def test_r4_a_late_retry_gets_a_branch_of_its_own() -> None:
    after, verdict = present(row(rotated_at=1.0), PresentedToken(4, 0, b"z"), NOW, POLICY)
    assert verdict is Verdict.BRANCHED
    assert (after.generation, after.branch, after.idempotency_hash) == (5, 1, b"z")


@pytest.mark.parametrize(
    "token",
    [PresentedToken(2, 0), PresentedToken(4, 1), PresentedToken(3, 0)],
    ids=["an old one", "a displaced one", "the one before"],
)
def test_r5_anything_else_ends_the_session_and_keeps_the_evidence(token: PresentedToken) -> None:
    after, verdict = present(row(), token, NOW, POLICY)
    assert verdict is Verdict.REUSED
    assert (after.revoked_at, after.revoked_why) == (NOW, "reuse")
    assert f"({token.generation},{token.branch})" in (after.evidence or "")


def test_r5_a_used_token_closes_the_generation() -> None:
    assert (
        present(row(rotated_at=1.0, first_used_branch=0), PresentedToken(4, 0, b"z"), NOW, POLICY)[1] is Verdict.REUSED
    )


class Life(RuleBasedStateMachine):
    """A victim whose responses get lost at any time, and a thief, on one coordinated session."""

    @initialize()
    def log_in(self) -> None:
        self.now = 0.0
        self.row = SessionRow(b"key", "sid", "ada", 0.0, 0.0, 1e9, 1e9, coordinated=True)
        self.held, self.attempt, self.count = (0, 0), b"", 0
        self.stolen: tuple[int, int] | None = None
        self.victim_out = self.thief_out = False
        self.rounds, self.new = 0, set[str]()

    def present(self, place: tuple[int, int], attempt: bytes) -> tuple[int, int] | None:
        self.row, verdict = present(self.row, PresentedToken(*place, attempt), self.now, POLICY)
        return None if verdict in (Verdict.DEAD, Verdict.REUSED) else (self.row.generation, self.row.branch)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: not self.victim_out)
    @rule(lost=st.booleans())
    def the_victim_refreshes(self, lost: bool) -> None:
        self.count += not self.attempt
        self.attempt = self.attempt or b"v%d" % self.count
        place = self.present(self.held, self.attempt)
        if place is None:
            self.victim_out = True
        elif not lost:
            self.held, self.attempt = place, b""
            self.note("victim")

    @precondition(lambda self: self.stolen is None)
    @rule()
    def a_thief_copies_the_token(self) -> None:
        self.stolen = self.held

    @precondition(lambda self: self.stolen is not None and not self.thief_out)
    @rule()
    def the_thief_refreshes(self) -> None:
        self.count += 1
        assert self.stolen is not None
        place = self.present(self.stolen, b"t%d" % self.count)
        self.thief_out = place is None
        self.stolen = place or self.stolen
        if place:
            self.note("thief")

    def note(self, who: str) -> None:
        if self.stolen is not None:
            self.new.add(who)
            if self.new == {"victim", "thief"}:
                self.rounds, self.new = self.rounds + 1, set()

    @invariant()
    def without_a_thief_nobody_is_shut_out(self) -> None:
        assert self.stolen is not None or not self.victim_out

    @invariant()
    def they_do_not_live_side_by_side(self) -> None:
        assert self.rounds < 4

    @invariant()
    def whoever_is_shut_out_the_session_is_over(self) -> None:
        assert self.row.revoked_why == "reuse" or not (self.victim_out or self.thief_out)


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLife = Life.TestCase
