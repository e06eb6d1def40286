"""Access control and common parts of all answers: the token, the Host header, limits, headers, logs and counters."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cusa.serve.monitoring import Monitoring
from cusa.serve.problems import HungUpError, RequestError, busy, error_response, shown
from cusa.serve.settings import Settings, is_loopback

LOG = logging.getLogger(__name__)
COOKIE_SECONDS = 30 * 24 * 3600
# The sources that a page may load: only those of this server, and no inline script or style.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
POLICY_HEADER = (b"content-security-policy", POLICY.encode())
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
OPEN_PATHS = ("/", "/health", "/api/token")  # and the files of the page, which hold no data
OPEN_FOLDER = "/page/"
SHOWN_TARGET = 300  # characters of a URL in the log


class Token:
    """The token of a server. A browser that has given it keeps a cookie that is derived from it."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._pass = hmac.new(self._token, b"cookie of cusa serve", hashlib.sha256).hexdigest()
        self.cookie = f"cusa_{self._pass[:8]}"  # servers on other ports of the host have other tokens

    def is_right(self, given: str) -> bool:
        """Whether a client gave this token. The time of the comparison reveals nothing about the token."""
        return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), self._token)

    def lets_in(self, headers: Headers) -> bool:
        """Whether a request has the token in its header `Authorization`, or the cookie."""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_right(given.strip()):
            return True
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return False
        return kept is not None and hmac.compare_digest(kept.value.encode("utf-8", "replace"), self._pass.encode())

    def give_cookie(self, response: Response, secure: bool) -> None:
        """Let a browser in from now on. Pages of other sites cannot use the cookie, and no script can read it."""
        response.set_cookie(
            self.cookie, self._pass, COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure, path="/"
        )


class Access:
    """The outermost part of the application: lets requests in, and turns every error into a sentence."""

    def __init__(self, app: ASGIApp, settings: Settings, monitoring: Monitoring) -> None:
        self.app, self.settings, self.monitoring = app, settings, monitoring
        self.token = None if settings.token is None else Token(settings.token)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, send, self.settings.origins)
        started = time.perf_counter()
        self._under_way += 1
        self.monitoring.under_way.set(self._under_way)
        try:
            await self._let_in(scope, receive, answer)
        except RequestError as error:
            await answer.refuse(error, receive)
        except HungUpError:
            answer.hung_up = True
        # A bug: the client gets a sentence, the log gets the traceback, and other requests are not affected.
        except Exception as error:
            LOG.exception("%s %s: %s", scope["method"], _target(scope), type(error).__name__)
            await answer.refuse(RequestError(500, "The server made a mistake; its log says which."), receive)
        finally:
            self._under_way -= 1
            self.monitoring.under_way.set(self._under_way)
        self._report(scope, answer, time.perf_counter() - started)

    async def _let_in(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers, path = Headers(scope=scope), scope["path"]
        if self._under_way > self.settings.limits.requests:
            raise busy(f"{self._under_way - 1} requests are under way; try again in a moment.", 2)
        self._check_host(headers)
        self._check_origin(headers)
        if scope["method"] == "OPTIONS" and headers.get("origin") in self.settings.origins:
            await _preflight(headers)(scope, receive, answer)
            return
        if self.token is not None and not self.token.lets_in(headers):
            given = dict(parse_qsl(scope["query_string"].decode("latin-1"))).get("token")
            if given is not None and self.token.is_right(given):
                if path in ("/", "/docs"):
                    await self._redirect(scope)(scope, receive, answer)
                    return
                answer.cookie_of = self.token
            elif given is not None or not (path in OPEN_PATHS or path.startswith(OPEN_FOLDER)):
                wrong = "That is not the token" if given is not None else "This server asks for its token"
                raise RequestError(
                    401,
                    f"{wrong}: open /?token=TOKEN once, or send the header `Authorization: Bearer TOKEN`.",
                    {"WWW-Authenticate": "Bearer"},
                )
        scope.setdefault("state", {})["is_known"] = self.token is None or self.token.lets_in(headers)
        await self.app(scope, receive, answer)

    def _check_host(self, headers: Headers) -> None:
        """Refuse pages of other sites whose name points to this machine (DNS rebinding)."""
        if not self.settings.is_local or self.token is not None:
            return
        try:
            name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        except ValueError:  # an odd bracket
            name = ""
        if not is_loopback(name):
            raise RequestError(
                421, f"This server answers as localhost or {self.settings.host}, not as {shown(name)}; use one of them."
            )

    def _check_origin(self, headers: Headers) -> None:
        origin = headers.get("origin")
        if origin is None or origin in self.settings.origins:
            return
        try:
            where = urlsplit(origin).netloc.lower()
        except ValueError:  # an odd bracket
            where = ""
        if not where or where != headers.get("host", "").lower():
            raise RequestError(
                403, f"Pages of {shown(origin)} may not use this server; `cusa serve --origin` would let them."
            )

    def _redirect(self, scope: Scope) -> Response:
        """Redirect to the same page without the token, so that no browser history contains it."""
        assert self.token is not None
        rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name != "token"]
        path = f"{scope.get('root_path', '')}{scope['path']}"
        response = RedirectResponse(f"{path}?{urlencode(rest)}" if rest else path, 303)
        self.token.give_cookie(response, scope["scheme"] == "https")
        return response

    def _report(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        sentence = answer.sentence or scope.get("state", {}).get("sentence", "-")
        if answer.hung_up or scope.get("state", {}).get("hung_up"):
            self.monitoring.hung_up.inc()
            LOG.info("%s %s: the client closed its connection", scope["method"], _target(scope))
            return
        self.monitoring.requests.labels(scope["method"], route, answer.status).inc()
        self.monitoring.seconds.labels(route).observe(seconds)
        if answer.status >= 400:
            self.monitoring.errors.labels(answer.status).inc()
            LOG.warning("%s %s %d: %s", scope["method"], _target(scope), answer.status, sentence)


class _Answer:
    """Sends an answer with the common headers, and records its status."""

    def __init__(self, scope: Scope, send: Send, origins: tuple[str, ...]) -> None:
        self.scope, self._send, self.origins = scope, send, origins
        self.status, self.sentence, self.hung_up = 0, "", False
        self.cookie_of: Token | None = None

    async def __call__(self, message: Message) -> None:
        """Send one message of ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            policy = None if "content-security-policy" in headers else POLICY_HEADER
            headers.raw.extend(HEADERS if policy is None else [*HEADERS, policy])
            if self.origins:
                self._let_other_sites_read(headers)
            if self.cookie_of is not None:
                response = Response()
                self.cookie_of.give_cookie(response, self.scope["scheme"] == "https")
                headers.append("Set-Cookie", response.headers["set-cookie"])
        await self._send(message)

    def _let_other_sites_read(self, headers: MutableHeaders) -> None:
        origin = Headers(scope=self.scope).get("origin")
        if origin in self.origins:
            headers["Access-Control-Allow-Origin"] = origin
        headers.add_vary_header("Origin")
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"

    async def refuse(self, error: RequestError, receive: Receive) -> None:
        """Answer with an error, unless an answer has begun."""
        if self.status:
            return
        self.sentence = error.sentence
        response = error_response(error.status, error.sentence, error.headers)
        await response(self.scope, receive, self)


def _preflight(headers: Headers) -> Response:
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "authorization, content-type",
            "Access-Control-Max-Age": "600",
        },
    )


def _target(scope: Scope) -> str:
    """The path and query of a request for the log, on one line and without the token."""
    fields = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    query = urlencode([(name, "..." if name == "token" else value) for name, value in fields])
    return shown(f"{scope['path']}?{query}" if query else scope["path"], SHOWN_TARGET)
