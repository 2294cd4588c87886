"""Asks a model behind an OpenAI-compatible address (`POST …/chat/completions`), as vLLM, Ollama and many others serve.

What is sent is what all of them take: a model's name, one message of texts and `image_url` parts (PNG in a data URL),
`temperature` unless it is left open, and `seed` where chance plays a part.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import re
import ssl
from collections.abc import Mapping
from threading import Event
from time import monotonic, perf_counter
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from fatezero.data.files import parse_json
from fatezero.errors import UserError, first_line
from fatezero.system.terminal import printable, shortened
from fatezero_eval.vlm.answering import Reply, UnansweredError
from fatezero_eval.vlm.questions import Question
from fatezero_eval.vlm.server_words import message_in, read_whole, token_counts, wait_asked_for, words_of
from fatezero_eval.vlm.shown_frames import ShownFrames, as_png

TRIES = 4
LONGEST_WAIT = 60.0  # seconds that a server may ask for between two tries
_BUSY = {408, 409, 425, 429}  # and all from 500 on: worth another try
_CLOSED = {401, 402, 403, 404, 405}  # what holds for all questions alike
_TOLD = 300  # characters of what a server says of its refusal


class _Busy(Exception):  # noqa: N818  (no error yet)
    """A try that failed, and may be made again.

    Attributes:
        wait: seconds that the server asks for; None where it names none.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _NoDetour(HTTPRedirectHandler):
    """Follows no redirection: it could carry the key and the pictures elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        """See `HTTPRedirectHandler`."""


class HttpAnswerer:
    """A model at an address."""

    def __init__(
        self,
        address: str,
        model: str,
        *,
        key: str = "",
        temperature: float | None = 0.0,
        timeout: float = 120.0,
        at_once: int = 4,
        first_wait: float = 1.0,
        stopped: Event | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            address: http(s)://host:port/v1.
            model: what the server calls the model.
            key: sent as a bearer token; never written anywhere.
            temperature: 0 takes the likeliest word; None leaves it to the server.
            timeout: seconds for one try.
            at_once: how many questions are put at the same time.
            first_wait: seconds before the second try, doubled before each later one.
            stopped: set when nobody waits for answers any more.

        Raises:
            UserError: the address is none, or holds a key; or the key cannot be sent.
        """
        _check_address(address)
        _check_key(key)
        parts = urlsplit(address)
        warmth = {None: ", temperature of its own", 0.0: ""}.get(temperature, f", temperature {temperature}")
        self.id = f"{model} at {parts.netloc}{parts.path.rstrip('/')}{warmth}"  # a machine may serve several
        self.at_once = at_once
        self._url = f"{address.rstrip('/')}/chat/completions"
        self._asked: dict[str, Any] = {"model": model}
        if temperature is not None:
            self._asked["temperature"] = temperature
        self._key = key
        self._timeout = timeout
        self._first_wait = first_wait
        self._stopped = stopped or Event()
        self._opener = _opener(parts.hostname or "")

    def __call__(self, question: Question, pictures: ShownFrames, repeat: int) -> Reply:
        """See `Answerer`."""
        body = {**self._asked, "messages": [{"role": "user", "content": _content(question, pictures)}]}
        if self._asked.get("temperature"):
            body["seed"] = repeat
        wait = self._first_wait
        for tries in range(1, TRIES + 1):
            begun = perf_counter()
            try:
                return self._reply(self._posted(body), perf_counter() - begun, tries)
            except _Busy as busy:
                reason, asked_for = str(busy), busy.wait
            if asked_for is not None and asked_for > LONGEST_WAIT:
                raise UnansweredError(f"{reason} and asks to wait {asked_for:,.0f} seconds: ask again then.", tries)
            if tries == TRIES or self._stopped.wait(wait if asked_for is None else asked_for):
                break
            wait *= 2
        raise UnansweredError(f"{reason} (asked {tries} times): evaluate again to ask again.", tries)

    def _posted(self, body: Mapping[str, Any]) -> Any:
        """What the server answers, as JSON; the key, should it stand there, is left out.

        Raises:
            _Busy: another try may fare better.
            UnansweredError: none will.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(self._url, json.dumps(body).encode(), headers, method="POST")
        ends = monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                return parse_json(self._without_key(read_whole(response, ends).decode()))
        except HTTPError as error:
            raise self._refusal(error, ends) from None
        except TimeoutError:
            raise self._late() from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise self._late() from None
            raise self._gone(error.reason) from None
        except ValueError as error:
            raise _Busy(f"{self._url} answers what is no JSON ({error})") from None
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None

    def _late(self) -> _Busy:
        return _Busy(f"{self._url} did not answer within {self._timeout:g} seconds (--vlm-timeout)")

    def _gone(self, error: object) -> Exception:
        """A broken line is worth another try; one that nobody takes is not."""
        reason = first_line(error) if isinstance(error, BaseException) else shortened(str(error), _TOLD)
        broken = isinstance(error, ConnectionError | http.client.HTTPException)
        if broken and not isinstance(error, ConnectionRefusedError):
            return _Busy(f"{self._url} broke off ({reason})")
        remedy = "name its certificate in SSL_CERT_FILE" if isinstance(error, ssl.SSLError) else "start the server"
        return UnansweredError(f"{self._url} cannot be reached ({reason}): {remedy}, or correct --vlm.", lasting=True)

    def _refusal(self, error: HTTPError, ends: float) -> Exception:
        """What a status other than 200 means; the server's own words are shown without the key."""
        with error:
            try:
                said = words_of(read_whole(error, ends).decode("utf-8", "replace"))
            except (OSError, ValueError, http.client.HTTPException):
                said = ""
        said = said or error.headers.get("Location") or ""  # of a redirection, which is not followed
        told = f"{self._url} answers {error.code}{self._quoted(said)}"
        if error.code in _BUSY or error.code >= 500:
            return _Busy(told, wait_asked_for(error.headers.get("Retry-After")))
        closed = error.code in _CLOSED or error.code < 400
        remedy = "check --vlm, which mostly ends in /v1, --vlm-model and the key" if closed else "mend what it names"
        return UnansweredError(f"{told} ({remedy}).", lasting=closed)

    def _reply(self, values: Any, seconds: float, tries: int) -> Reply:
        """What the model said; its refusal is its words.

        Raises:
            _Busy: the answer has another form.
        """
        try:
            message = values["choices"][0]["message"]
            said = message.get("content") or message.get("refusal") or ""
            text = said if isinstance(said, str) else "".join(part.get("text", "") for part in said)
        except (KeyError, IndexError, TypeError, AttributeError):
            words = self._quoted(message_in(values))
            raise _Busy(f"{self._url} answers without choices[0].message.content{words}") from None
        return Reply(text=text, seconds=seconds, tries=tries, **token_counts(values.get("usage")))

    def _quoted(self, said: str) -> str:
        """A server's words, for the end of a sentence."""
        return f": {shortened(printable(self._without_key(said)), _TOLD)}" if said else ""

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


def _opener(host: str) -> OpenerDirector:
    """Follows no redirection, and takes no proxy to this machine itself."""
    try:
        here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    return build_opener(_NoDetour, *([ProxyHandler({})] if here else []))


def _content(question: Question, pictures: ShownFrames) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    for part in (*pictures.parts, question.text):
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            address = f"data:image/png;base64,{base64.b64encode(as_png(part)).decode()}"
            content.append({"type": "image_url", "image_url": {"url": address}})
    return content


def _check_address(address: str) -> None:
    """Refuse what is no address of a server.

    Raises:
        UserError: it is not http(s)://host[:port]/… in ASCII, ends in what is added to it, or holds a name or a key.
    """
    if not re.fullmatch(r"[!-~]+", address):
        raise UserError("--vlm has blanks or characters beyond ASCII, which no address has; write http://host:8000/v1.")
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UserError(f"--vlm is no address ({error}); write http://host:8000/v1.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise UserError("--vlm is no address with a host; write http://host:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError("--vlm holds more than an address: put the key into an environment variable (see --vlm-key).")
    if parts.path.rstrip("/").endswith("/chat/completions"):
        raise UserError("--vlm ends in /chat/completions, which is added to it; leave it out.")


def _check_key(key: str) -> None:
    """Refuse a key that no header can hold; http.client would quote it in its error.

    Raises:
        UserError: without a word of it.
    """
    if not re.fullmatch(r"[!-~]*", key):
        raise UserError("The key for --vlm has blanks, line ends or characters beyond ASCII; set the variable anew.")
