"""Whom `cusa serve` answers: the token, its cookie, names of hosts, and pages of other sites."""

from __future__ import annotations

import asyncio

import pytest
from serving import ADDRESS, client_of
from starlette.requests import Request

from cusa.serve.problems import RequestError
from cusa.serve.settings import Limits, Settings
from cusa.serve.uploads import Uploads

TOKEN = "a-token-of-the-tests"
GUARDED = ["/api/indexes", "/api/search?q=red", "/api/indexes/shapes/pictures/0", "/docs", "/openapi.json", "/metrics"]


@pytest.fixture(scope="module")
def client(shapes_index):
    with client_of(shapes_index, settings=Settings(host="0.0.0.0", token=TOKEN)) as found:
        yield found


@pytest.fixture(autouse=True)
def without_cookies(client):
    client.cookies.clear()


@pytest.mark.parametrize("path", GUARDED)
def test_without_the_token_nothing_is_told(client, path):
    answer = client.get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"].startswith("This server asks for its token: open /?token=TOKEN once")


@pytest.mark.parametrize("path", GUARDED)
def test_the_token_in_the_header_lets_programs_in(client, path):
    assert client.get(path, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Cookie": f"cusa_token={TOKEN}"},
        {"Cookie": 'broken="'},
    ],
    ids=["wrong", "Basic", "no scheme", "nothing", "longer", "a cookie of one's own", "a broken cookie"],
)
def test_other_headers_do_not(client, headers):
    assert client.get("/api/indexes", headers=headers).status_code == 401


def test_the_page_itself_holds_no_data_and_needs_no_token(client):
    assert client.get("/").status_code == 200
    assert client.get("/page/page.js").status_code == 200
    assert client.head("/").status_code == 200
    health = client.get("/health")
    assert health.status_code == 200
    assert set(health.json()) == {"ready", "version"}
    assert "indexes" in client.get("/health", headers={"Authorization": f"Bearer {TOKEN}"}).json()


def test_the_token_in_the_address_becomes_a_cookie_and_leaves_the_address(client):
    answer = client.get(f"/?q=red&token={TOKEN}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?q=red")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/api/indexes").status_code == 200
    assert client.get("/api/indexes/shapes/pictures/0").status_code == 200


def test_the_token_in_the_address_of_the_api_lets_in_too(client):
    assert client.get("/api/search", params={"q": "red", "token": TOKEN}).status_code == 200
    assert client.get("/api/indexes").status_code == 200
    client.cookies.clear()
    wrong = client.get("/?token=wrong-token")
    assert wrong.status_code == 401
    assert wrong.json()["error"].startswith("That is not the token")


def test_the_page_gives_the_token_in_a_form(client):
    assert client.post("/api/token", data={"token": "wrong-token"}).status_code == 401
    assert client.get("/api/indexes").status_code == 401
    assert client.post("/api/token", data={"token": TOKEN}).status_code == 204
    assert client.get("/api/indexes").status_code == 200


def test_the_log_does_not_have_the_token(client, caplog):
    client.get("/api/search", params={"token": TOKEN, "top": "x"})
    client.get("/nothing", params={"token": TOKEN})
    assert len(caplog.records) == 2
    assert TOKEN not in caplog.text
    assert "token=..." in caplog.text


def test_lines_of_a_client_do_not_become_lines_of_the_log(shapes_index, caplog):
    with client_of(shapes_index) as client:
        client.get("/api/search", params={"q": "a", "index": "x\n12:00:00 forged\x1b[31m"})
        client.get("/nothing%0a12:00:00%20forged")
    assert len(caplog.records) == 2
    for record in caplog.records:
        assert record.getMessage().isprintable()


def test_the_form_of_the_token_has_to_come_in_time():
    async def nothing() -> None:
        await asyncio.sleep(60)

    kind = (b"content-type", b"application/x-www-form-urlencoded")
    request = Request({"type": "http", "method": "POST", "headers": [kind]}, nothing)
    with pytest.raises(RequestError, match=r"not there after 0\.1 s"):
        asyncio.run(Uploads(Limits(upload_seconds=0.1)).field(request, "token"))


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("", 421),
        ("[::1", 421),
    ],
    ids=["address", "name", "capitals", "version 6", "another", "like it", "none", "half a bracket"],
)
def test_on_this_machine_only_its_own_names_are_answered(shapes_client, host, status):
    answer = shapes_client.get("/api/indexes", headers={"Host": host})
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"].startswith("This server answers as localhost or 127.0.0.1")


@pytest.fixture(scope="module")
def shapes_client(shapes_index):
    with client_of(shapes_index) as found:
        yield found


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9000", "http://["])
def test_pages_of_other_sites_may_not_ask(shapes_client, origin):
    for answer in (
        shapes_client.get("/api/search", params={"q": "red"}, headers={"Origin": origin}),
        shapes_client.post("/api/search", json={"q": "red"}, headers={"Origin": origin}),
        shapes_client.options("/api/search", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}),
    ):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    answer = shapes_client.get("/api/indexes", headers={"Origin": ADDRESS})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_site_that_was_named_may_ask(shapes_index):
    settings = Settings(origins=("https://example.org",), token=TOKEN)
    with client_of(shapes_index, settings=settings) as client:
        headers = {"Origin": "https://example.org", "Authorization": f"Bearer {TOKEN}"}
        before = client.options("/api/search", headers={"Origin": "https://example.org"})
        assert before.status_code == 204
        assert "authorization" in before.headers["access-control-allow-headers"]
        answer = client.get("/api/indexes", headers=headers)
        assert answer.headers["access-control-allow-origin"] == "https://example.org"
        assert "Origin" in answer.headers["vary"]
        refused = client.get("/api/indexes", headers=headers | {"Origin": "https://evil.example"})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers


def test_too_many_requests_at_once_are_told_to_come_again(shapes_index):
    with client_of(shapes_index, settings=Settings(limits=Limits(requests=0))) as client:
        answer = client.get("/api/indexes")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
