"""Who may do what with a registry: passwords, rules, tokens, limits, records."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from harness.hub import SOURCE, Hub, Peer, serving, sha256
from harness.waiting import until

USERS = {"ann": "secret", "ci": "robot"}
RULES = {
    "rules": [
        {"users": ["anonymous"], "repositories": ["public/**"], "actions": ["pull"]},
        {"users": ["ci"], "repositories": ["public/*", "team/**"], "actions": ["pull", "push"]},
        {"users": ["ann"], "repositories": ["**"], "actions": ["pull", "push", "delete"]},
    ]
}


def passwd(path: Path, user: str, secret: str, source: str = "stdin") -> None:
    subprocess.run(
        [sys.executable, "-m", "teu.distribution.passwords", str(path), user, source],
        input=secret,
        text=True,
        check=True,
        env={"PYTHONPATH": str(SOURCE)},
    )


@pytest.fixture(scope="module")
def htpasswd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("users") / "htpasswd"
    for user, secret in USERS.items():
        passwd(path, user, secret)
    return path


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.json"
    path.write_text(json.dumps(RULES))
    return path


def as_user(hub: Hub, user: str, secret: str = "") -> Peer:
    words = f"{user}:{secret or USERS[user]}".encode()
    return Peer(hub.address, {"Authorization": f"Basic {base64.b64encode(words).decode()}"})


@pytest.fixture(scope="module")
def hub(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    htpasswd: Path,
    rules: Path,
) -> Iterator[Hub]:
    """With users, and the options of the class."""
    more: dict[str, Any] = getattr(request, "param", {})
    options = {"htpasswd": str(htpasswd), **more}
    if options.pop("with_rules", False):
        options["rules"] = str(rules)
    with serving(tmp_path_factory.mktemp("hub") / "root", **options) as hub:
        yield hub


@pytest.mark.parametrize("hub", [{}], indirect=True)
class TestPasswords:
    def test_nobody_without_a_name(self, hub: Hub) -> None:
        for path in ("/v2/", "/v2/_catalog", "/v2/a/tags/list", "/metrics", "/"):
            refused = hub.ask("GET", path)
            assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
            assert refused.headers["www-authenticate"] == 'Basic realm="Registry Realm"'
        assert hub.ask("GET", "/healthz").status == 200

    @pytest.mark.parametrize(
        "header", ["Basic", "Basic !!", "Basic eA==", "Bearer x.y", "Digest a"]
    )
    def test_broken_credentials(self, hub: Hub, header: str) -> None:
        assert Peer(hub.address, {"Authorization": header}).ask("GET", "/v2/").status == 401

    def test_wrong_ones(self, hub: Hub) -> None:
        assert as_user(hub, "ann", "wrong").ask("GET", "/v2/").status == 401
        assert as_user(hub, "eve", "secret").ask("GET", "/v2/").status == 401

    def test_users_may_do_everything(self, hub: Hub) -> None:
        digest = as_user(hub, "ann").push_image("app", "1")
        assert as_user(hub, "ci").ask("DELETE", f"/v2/app/manifests/{digest}").status == 202

    def test_a_new_user_counts_at_once(self, hub: Hub, htpasswd: Path) -> None:
        assert as_user(hub, "bob", "builder").ask("GET", "/v2/").status == 401
        passwd(htpasswd, "bob", "builder")
        assert as_user(hub, "bob", "builder").ask("GET", "/v2/").status == 200
        passwd(htpasswd, "bob", "", "delete")
        assert as_user(hub, "bob", "builder").ask("GET", "/v2/").status == 401
        assert as_user(hub, "ann").ask("GET", "/v2/").status == 200


@pytest.mark.parametrize("hub", [{"with_rules": True}], indirect=True)
class TestRules:
    def test_each_may_what_the_first_fitting_rule_says(self, hub: Hub) -> None:
        ann, ci = as_user(hub, "ann"), as_user(hub, "ci")
        digest = ci.push_image("team/x/app", "1")
        ann.push_image("public/app", "1")
        assert hub.ask("GET", "/v2/public/app/manifests/1").status == 200
        assert hub.ask("GET", "/v2/team/x/app/manifests/1").status == 401
        assert ci.ask("DELETE", f"/v2/team/x/app/manifests/{digest}").code == "DENIED"
        assert ci.ask("POST", "/v2/private/blobs/uploads/").code == "DENIED"
        assert ann.ask("DELETE", f"/v2/team/x/app/manifests/{digest}").status == 202

    def test_a_mount_needs_the_right_to_pull(self, hub: Hub) -> None:
        digest = as_user(hub, "ann").push_blob("private", b"private")
        place = f"/v2/team/app/blobs/uploads/?mount={digest}&from=private"
        assert as_user(hub, "ci").ask("POST", place).code == "DENIED"
        assert as_user(hub, "ci").ask("GET", f"/v2/team/app/blobs/{digest}").status == 404


@pytest.mark.parametrize("hub", [{"with_rules": True, "tokens": True}], indirect=True)
class TestTokens:
    def token(self, peer: Peer, *scopes: str) -> Peer:
        query = "&".join(f"scope={scope}" for scope in scopes)
        got = peer.ask("GET", f"/token?service=x&{query}")
        assert got.status == 200
        assert got.json["token"] == got.json["access_token"]
        return Peer(peer.address, {"Authorization": f"Bearer {got.json['token']}"})

    def test_the_challenge_says_where(self, hub: Hub) -> None:
        refused = hub.ask("POST", "/v2/team/app/blobs/uploads/")
        assert refused.headers["www-authenticate"] == (
            f'Bearer realm="http://{hub.address}/token",service="{hub.address}",'
            'scope="repository:team/app:pull,push"'
        )

    def test_a_token_is_good_for_its_scopes_only(self, hub: Hub) -> None:
        ci = self.token(as_user(hub, "ci"), "repository:team/app:pull,push,delete")
        digest = ci.push_image("team/app", "1")
        refused = ci.ask("DELETE", f"/v2/team/app/manifests/{digest}")
        assert (refused.status, 'error="insufficient_scope"' in str(refused.headers)) == (401, True)
        assert ci.ask("GET", "/v2/team/other/manifests/1").status == 401

    def test_nobody_gets_what_the_rules_give_to_all(self, hub: Hub) -> None:
        as_user(hub, "ann").push_image("public/app", "1")
        anyone = self.token(hub, "repository:public/app:pull,push")
        assert anyone.ask("GET", "/v2/public/app/manifests/1").status == 200
        assert anyone.ask("POST", "/v2/public/app/blobs/uploads/").status == 401

    def test_a_token_that_was_changed(self, hub: Hub) -> None:
        good = self.token(as_user(hub, "ci"), "repository:team/app:pull")
        body, _, signature = good.headers["Authorization"].partition(".")
        forged = Peer(hub.address, {"Authorization": f"{body[:-4]}AAAA.{signature}"})
        assert forged.ask("GET", "/v2/team/app/tags/list").status == 401
        assert as_user(hub, "ci", "wrong").ask("GET", "/token").status == 401


class TestLimits:
    def test_read_only(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root") as hub:
            digest = hub.push_image("app", "1")
            hub.stop()
        with serving(tmp_path / "root", read_only=True) as hub:
            assert hub.ask("GET", "/v2/app/manifests/1").status == 200
            for method, path in (
                ("POST", "/v2/app/blobs/uploads/"),
                ("DELETE", f"/v2/app/manifests/{digest}"),
            ):
                assert hub.ask(method, path).status == 405

    def test_quota(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root", quota=5000) as hub:
            hub.push_blob("app", b"x" * 4000)
            before = hub.files()
            digest = sha256(b"y" * 2000)
            refused = hub.ask("POST", f"/v2/app/blobs/uploads/?digest={digest}", b"y" * 2000)
            assert (refused.status, refused.code) == (403, "DENIED")
            assert hub.ask("GET", f"/v2/app/blobs/{digest}").status == 404
            assert {name for name in hub.files() if "uploads" not in name} == before
            hub.push_blob("other", b"y" * 2000)

    def test_rate(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root", rate=5) as hub:
            answers = [hub.ask("GET", "/v2/") for _ in range(20)]
            refused = [answer for answer in answers if answer.status == 429]
            assert refused
            assert refused[0].code == "TOOMANYREQUESTS"
            assert refused[0].headers["retry-after"] == "1"
            until("it answers again", lambda: hub.ask("GET", "/v2/").status == 200)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"tokens": True}, "--htpasswd"),
            ({"tls_cert": "x"}, "--tls-key"),
            ({"listen": "nowhere"}, "not [HOST]:PORT"),
            ({"listen": "127.0.0.1:99999"}, "not [HOST]:PORT"),
            ({"htpasswd": "/nonexistent"}, "cannot read /nonexistent"),
            ({"unknown": 1}, "unknown"),
            ({"proxy": "https://x/"}, "--proxy"),
        ],
    )
    def test_refuses_to_start(self, tmp_path: Path, options: dict[str, Any], reason: str) -> None:
        with pytest.raises(AssertionError, match="teu registry: ") as failure:
            Hub(tmp_path / "root", **options)
        assert reason in str(failure.value)


class TestRecords:
    def test_audit_log(self, tmp_path: Path, htpasswd: Path) -> None:
        audit = tmp_path / "audit"
        options = {"htpasswd": str(htpasswd), "audit_log": str(audit)}
        with serving(tmp_path / "root", **options) as hub:
            as_user(hub, "ann").push_image("app", "1")
            hub.ask("GET", "/v2/app/manifests/1")
        entries = [json.loads(line) for line in audit.read_text().splitlines()]
        put = next(
            entry for entry in entries if entry["method"] == "PUT" and entry["reference"] == "1"
        )
        assert (put["user"], put["repository"], put["status"]) == ("ann", "app", 201)
        assert (entries[-1]["user"], entries[-1]["status"]) == ("", 401)

    def test_metrics_and_page(self, tmp_path: Path) -> None:
        with serving(tmp_path / "root") as hub:
            hub.push_image("web/app", "<b>1</b>".replace("<b>", "v").replace("</b>", ""))
            text = hub.ask("GET", "/metrics").body.decode()
            line = 'teu_registry_requests_total{method="PUT",resource="manifests",code="201"} 1'
            assert line in text
            assert "teu_registry_repositories 1" in text
            assert b"web/app" in hub.ask("GET", "/").body
            page = hub.ask("GET", "/?repository=web/app").body.decode()
            assert "linux/amd64" in page
            assert "teu pull" in page
            assert "<script>" not in hub.ask("GET", "/?repository=<script>").body.decode()

    def test_webhooks_are_sent_until_they_are_taken(self, tmp_path: Path) -> None:
        seen: list[dict[str, Any]] = []
        refusals = [503, 500]

        class Receiver(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = refusals.pop() if refusals else 200
                if status == 200:
                    seen.extend(json.loads(body)["events"])
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        receiver = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{receiver.server_address[1]}/hook"
        try:
            with serving(tmp_path / "root", notify=[url]) as hub:
                digest = hub.push_image("app", "1")
                hub.ask("DELETE", f"/v2/app/manifests/{digest}")
                until("both events", lambda: len(seen) == 2)
        finally:
            receiver.shutdown()
            receiver.server_close()
        assert [event["action"] for event in seen] == ["push", "delete"]
        assert (seen[0]["target"]["repository"], seen[0]["target"]["tag"]) == ("app", "1")
        assert seen[0]["target"]["digest"] == digest
