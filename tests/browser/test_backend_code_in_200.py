"""A backend that responds 200 to everything; and the defects of a list of callbacks."""

from __future__ import annotations

import pytest

from tests.browser.scene import DOWN, JUNK, LOST, errors
from tests.interop.backends.base import Fault
from tests.interop.backends.shapes import CodeIn200

CODE_500 = Fault(status=200, body=b'{"code": 500, "data": null}')


NO_DATA = Fault(status=200, body=b'{"code": 200, "data": null}')


@pytest.fixture
def scene(stage):
    return stage(CodeIn200())


def codes(outcomes) -> list[int]:
    return [outcome["json"]["code"] for outcome in outcomes]


@pytest.mark.defect("S1.1")
@pytest.mark.parametrize(
    ("fault", "error"),
    [(DOWN, "try_later"), (LOST, "try_later"), (CODE_500, "try_later"), (NO_DATA, "bad_answer")],
    ids=["503", "lost", "code 500", "no data"],
)
def test_a_failed_refresh_is_an_error_and_no_response(scene, fault, error) -> None:
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    assert scene.get()["error"] == error
    assert (scene.tab.heard("over"), "tokens" in scene.tab.stored) == ([], True)


@pytest.mark.defect("S1.2")
@pytest.mark.parametrize("code", [401, 402, 403])
def test_a_refused_refresh_is_an_error_and_no_response(scene, code) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=b'{"code": %d, "data": null}' % code))
    assert scene.get()["error"] == "session_over"
    assert (scene.backend.refreshes, len(scene.tab.heard("over")), "tokens" in scene.tab.stored) == (1, 1, False)


@pytest.mark.defect("S1.3")
@pytest.mark.parametrize("fault", [DOWN, JUNK, LOST, CODE_500], ids=["503", "junk", "lost", "code 500"])
def test_every_waiting_request_ends_whatever_the_failure_is(scene, fault) -> None:
    scene.backend.expire()
    scene.backend.spoil(fault, times=60)
    assert errors(scene.together(20)) == ["try_later"] * 20
    assert scene.backend.refreshes <= 3, "a failure is remembered: it is not repeated for everybody"


@pytest.mark.defect("S1.4")
def test_no_request_from_before_is_sent_after_another_login(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert scene.post("pay")["error"] == "try_later"
    scene.log_in("bob")
    scene.backend.expire()
    assert scene.get()["json"]["user"] == "bob"
    assert [seen.method for seen in scene.backend.seen].count("POST") == 1


@pytest.mark.defect("S1.5")
def test_challenges_right_after_a_refresh_are_refreshed_too(stage) -> None:
    scene = stage(CodeIn200(), window=None)

    def refreshed(times: int) -> bool:
        scene.tab.pass_(31)  # an endpoint that was challenged twice in a row is asked again
        assert scene.tab.run("() => window.broken ?? null") is None
        return len(scene.backend.issued) > times

    scene.tab.run(
        """(client) => {
            const work = async (_, number) => {
                let done = 0;
                for (; !window.enough; done++) {
                    const came = await ask(client, `/api/echo?${number}`);
                    if (!came.json) throw new Error(JSON.stringify(came));
                }
                return done;
            };
            window.workers = Promise.all(Array.from({ length: 5 }, work));
            workers.catch((error) => (window.broken = String(error)));
        }""",
        scene.tab.client,
    )
    for times in range(1, 6):
        scene.backend.expire()
        scene.tab.until(lambda at_least=times: refreshed(at_least))
    assert all(scene.tab.run("() => ((window.enough = true), workers)"))
    assert codes([scene.get()]) == [200]
    assert scene.backend.alarms == 0


@pytest.mark.defect("S1.6")
def test_a_request_that_is_challenged_twice_delays_no_other(scene) -> None:
    scene.backend.expire()
    stubborn = scene.tab.begin("/api/never", count=5)
    assert codes(scene.together(5)) == [200] * 5
    assert codes(scene.tab.outcomes(stubborn)) == [401] * 5
    assert scene.tab.status["refreshing"] is False


@pytest.mark.defect("S1.7")
def test_the_query_of_a_refresh_appears_in_no_log_error_or_event(scene) -> None:
    said: list[str] = []
    scene.tab.page.on("console", lambda message: said.append(message.text))
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    failure = scene.get()
    scene.tab.pass_(60)
    assert codes([scene.get()]) == [200]
    [secret] = set(scene.backend.presented)
    assert secret == scene.backend.issued[0].refresh
    ours = [line for line in said if not line.startswith("Failed to load resource")]  # the browser's own
    assert secret not in f"{failure}{ours}{scene.tab.run('() => JSON.stringify(heard)')}{scene.tab.page.url}"
    resources = scene.tab.run("() => performance.getEntriesByType('navigation').map(({ name }) => name)")
    assert secret not in str(resources)
    assert {beside.get("cache-control") for beside in scene.backend.beside} == {"no-cache"}, (
        "nothing caches the response"
    )


@pytest.mark.defect("S1.8")
def test_an_odd_refresh_token_arrives_whole_and_a_missing_one_is_not_sent(stage) -> None:
    scene = stage(CodeIn200(tail="&x=1 +/%20#?~"))
    scene.backend.expire()
    assert codes([scene.get()]) == [200]
    assert scene.backend.presented == [scene.backend.issued[0].refresh]
    response = {"data": {"token": scene.backend.issued[-1].access, "tokenHead": "Bearer "}}
    scene.tab.run("(response) => session.importTokens(response)", response)
    scene.backend.expire()
    assert scene.get()["reason"] == "no_refresh_token"
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S1.9")
@pytest.mark.parametrize(
    ("data", "field"),
    [('{"tokenHead": "Bearer "}', "data.token"), ('{"token": "x"}', "data.tokenHead"), ('{"token": 7}', "data.token")],
)
def test_a_missing_field_is_named_and_the_tokens_are_kept(scene, data, field) -> None:
    before = scene.tab.stored["tokens"]
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=b'{"code": 200, "data": %s}' % data.encode()), times=3)
    caught = scene.get()
    assert (caught["error"], caught["field"]) == ("bad_answer", field)
    assert (scene.tab.stored["tokens"], scene.backend.refreshes) == (before, 1)
    scene.backend.faults.clear()
    scene.tab.pass_(60)
    assert codes([scene.get()]) == [200]


@pytest.mark.defect("S1.10")
def test_a_challenge_by_status_counts_like_one_by_code(stage) -> None:
    scene = stage(CodeIn200(status=401))
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.backend.refreshes == 1


@pytest.mark.defect("S1.11")
def test_no_tab_ever_reads_two_tokens_of_different_pairs(stage) -> None:
    scene = stage(CodeIn200(), tabs=2, window=None)
    look = """() => {
        window.pairs = new Set();
        const look = () => {
            const { access, refresh } = stored().tokens;
            pairs.add(`${access} ${refresh}`);
        };
        window.addEventListener("storage", look);
        setInterval(look, 1);
    }"""
    scene.tabs[1].run(look)
    for _ in range(5):
        scene.backend.expire()
        scene.tab.pass_(31)
        assert codes([scene.get()]) == [200]
    newest = scene.backend.issued[-1]
    scene.tabs[1].until(lambda: f"{newest.access} {newest.refresh}" in scene.tabs[1].run("() => [...pairs]"))
    seen = set(scene.tabs[1].run("() => [...pairs]"))
    assert len(seen) > 1
    assert seen <= {f"{pair.access} {pair.refresh}" for pair in scene.backend.issued}


@pytest.mark.defect("S1.12")
def test_late_challenges_loops_and_silence_all_end(stage) -> None:
    scene = stage(CodeIn200(), refreshTimeout=0.2)
    scene.backend.expire()
    late = scene.hold()
    assert codes([scene.get()]) == [200]
    scene.release()
    assert codes(scene.tab.outcomes(late)) == [200]
    assert scene.backend.refreshes == 1, "a late challenge needs none"
    assert codes([scene.get("/api/never") for _ in range(10)]) == [401] * 10
    assert scene.backend.refreshes == 2, "nor does an endpoint that always challenges, after the first time"
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=2, lost=True), times=3)
    assert scene.get()["error"] == "try_later"
