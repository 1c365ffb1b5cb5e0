"""The defects of a list of callbacks, in a page of a backend that answers 200 to everything."""

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


@pytest.mark.parametrize(
    ("fault", "error"),
    [(DOWN, "try_later"), (LOST, "try_later"), (CODE_500, "try_later"), (NO_DATA, "bad_answer")],
    ids=["503", "lost", "code 500", "no data"],
)
def test_a_renewal_that_fails_is_an_error_and_no_answer_s1_1(scene, fault, error) -> None:
    scene.backend.expire()
    scene.backend.spoil(fault, times=3)
    assert scene.get()["error"] == error
    assert (scene.tab.heard("over"), "tokens" in scene.tab.stored) == ([], True)


@pytest.mark.parametrize("code", [401, 402, 403])
def test_a_refused_renewal_is_an_error_and_no_answer_s1_2(scene, code) -> None:
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=b'{"code": %d, "data": null}' % code))
    assert scene.get()["error"] == "session_over"
    assert (scene.backend.exchanges, len(scene.tab.heard("over")), "tokens" in scene.tab.stored) == (1, 1, False)


@pytest.mark.parametrize("fault", [DOWN, JUNK, LOST, CODE_500], ids=["503", "junk", "lost", "code 500"])
def test_nobody_waits_for_ever_whatever_the_failure_s1_3(scene, fault) -> None:
    scene.backend.expire()
    scene.backend.spoil(fault, times=60)
    assert errors(scene.together(20)) == ["try_later"] * 20
    assert scene.backend.exchanges <= 3, "a failure is remembered: it is not repeated for everybody"


def test_nothing_left_over_is_sent_after_another_login_s1_4(scene) -> None:
    scene.backend.expire()
    scene.backend.spoil(DOWN)
    assert scene.post("pay")["error"] == "try_later"
    scene.log_in("bob")
    scene.backend.expire()
    assert scene.get()["json"]["user"] == "bob"
    assert [seen.method for seen in scene.backend.seen].count("POST") == 1


def test_a_challenge_just_after_a_renewal_finds_no_dead_queue_s1_5(stage) -> None:
    scene = stage(CodeIn200(), window=None)

    def renewed(times: int) -> bool:
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
        scene.tab.until(lambda at_least=times: renewed(at_least))
    assert all(scene.tab.run("() => ((window.enough = true), workers)"))
    assert codes([scene.get()]) == [200]
    assert scene.backend.alarms == 0


def test_a_repeated_request_that_is_challenged_again_holds_up_nobody_s1_6(scene) -> None:
    scene.backend.expire()
    stubborn = scene.tab.begin("/api/never", count=5)
    assert codes(scene.together(5)) == [200] * 5
    assert codes(scene.tab.outcomes(stubborn)) == [401] * 5
    assert scene.tab.status["renewing"] is False


def test_the_query_of_an_exchange_is_shown_nowhere_s1_7(scene) -> None:
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
    assert {beside.get("cache-control") for beside in scene.backend.beside} == {"no-cache"}, "nothing keeps the answer"


def test_no_refresh_token_is_not_sent_and_an_odd_one_arrives_whole_s1_8(stage) -> None:
    scene = stage(CodeIn200(tail="&x=1 +/%20#?~"))
    scene.backend.expire()
    assert codes([scene.get()]) == [200]
    assert scene.backend.presented == [scene.backend.issued[0].refresh]
    answer = {"data": {"token": scene.backend.issued[-1].access, "tokenHead": "Bearer "}}
    scene.tab.run("(answer) => session.import_tokens(answer)", answer)
    scene.backend.expire()
    assert scene.get()["reason"] == "no_refresh_token"
    assert scene.backend.exchanges == 1


@pytest.mark.parametrize(
    ("data", "field"),
    [('{"tokenHead": "Bearer "}', "data.token"), ('{"token": "x"}', "data.tokenHead"), ('{"token": 7}', "data.token")],
)
def test_a_missing_field_is_named_and_the_tokens_are_kept_s1_9(scene, data, field) -> None:
    before = scene.tab.stored["tokens"]
    scene.backend.expire()
    scene.backend.spoil(Fault(status=200, body=b'{"code": 200, "data": %s}' % data.encode()), times=3)
    caught = scene.get()
    assert (caught["error"], caught["field"]) == ("bad_answer", field)
    assert (scene.tab.stored["tokens"], scene.backend.exchanges) == (before, 1)
    scene.backend.faults.clear()
    scene.tab.pass_(60)
    assert codes([scene.get()]) == [200]


def test_a_challenge_by_status_counts_as_well_as_one_by_code_s1_10(stage) -> None:
    scene = stage(CodeIn200(status=401))
    scene.backend.expire()
    assert scene.get()["status"] == 200
    assert scene.backend.exchanges == 1


def test_no_tab_sees_one_token_of_one_pair_and_one_of_another_s1_11(stage) -> None:
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


def test_late_challenges_loops_and_silence_all_have_an_end_s1_12(stage) -> None:
    scene = stage(CodeIn200(), exchangeTimeout=0.2)
    scene.backend.expire()
    scene.backend.held = True
    late = scene.tab.begin("/api/late")
    scene.tab.until(lambda: scene.backend.requests_to("/api/late"))
    assert codes([scene.get()]) == [200]
    scene.backend.held = False
    assert codes(scene.tab.outcomes(late)) == [200]
    assert scene.backend.exchanges == 1, "a late challenge needs none"
    assert codes([scene.get("/api/never") for _ in range(10)]) == [401] * 10
    assert scene.backend.exchanges == 2, "nor does an endpoint that always challenges, after the first time"
    scene.backend.expire()
    scene.backend.spoil(Fault(seconds=2, lost=True), times=3)
    assert scene.get()["error"] == "try_later"
