"""The operations that reach beyond a flow: topics, questions to other flows, processes, databases, secrets.

Each is a step of the flow; the engine or a connector performs it. What is wrong with the arguments is
said before the step has its number.
"""

from __future__ import annotations

from typing import Any

from flowmetal.errors import LispError
from flowmetal.lang.flow_ops import flow_id_of, need_when, options_of
from flowmetal.lang.frames import Fiber
from flowmetal.lang.machine import Machine
from flowmetal.lang.machine_ops import op
from flowmetal.lang.persistent import EMPTY_MAP, List, Map, Vector
from flowmetal.lang.primitives.registry import primitive
from flowmetal.lang.printer import pr_str
from flowmetal.lang.secrets import Secret, secret
from flowmetal.lang.values import Keyword, Symbol, kw

# Topics


def _topic_name(x: Any) -> str:
    if isinstance(x, (Keyword, Symbol)):
        return x.text
    if isinstance(x, str) and x:
        return x
    raise LispError(f"a topic is named by a string or a keyword, not by {pr_str(x)}", type="type")


@op("flow", "publish", 2, 2, "([topic data])", "Publishes an event to a topic; its message id.", '(string? (publish "orders" {:id "A-17"})) ;=> true')
def _publish(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.ask(fiber, "publish", _topic_name(args[0]), [args[1]])


@op("flow", "subscribe*", 2, 2, "([topic options])", "Where a subscription to a topic begins: its position. `subscribe` is made of it.")
def _subscribe(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = options_of(args[1], ("where", "envelope", "from"), "subscribe")
    return m.ask(fiber, "subscribe", _topic_name(args[0]), [options])


@op("flow", "next-event*", 2, 2, "([topic options])", "Waits for the next event of a topic after a position. `next-event` is made of it.")
def _next_event(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.ask(fiber, "next-event", _topic_name(args[0]), [args[1]])


@op("flow", "next-event-promise*", 2, 2, "([topic options])", "The promise of the next event of a topic after a position: next-event inside select.")
def _next_event_promise(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.request(fiber, "next-event", _topic_name(args[0]), [args[1]])[1]


@op(
    "flow",
    "topic",
    1,
    2,
    "([name] [name {:keys [verify retain]}])",
    "Declares a topic: the signature scheme that its webhooks carry, how long its events are kept.",
)
def _topic(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = options_of(args[1], ("verify", "retain"), "topic") if len(args) > 1 else EMPTY_MAP
    return m.ask(fiber, "topic", _topic_name(args[0]), [options])


# Questions


@op("flow", "ask", 2, 3, "([flow message] [flow message {:keys [timeout]}])", "Puts a question into a flow's mailbox and waits for its reply.")
def _ask(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = EMPTY_MAP
    if len(args) > 2 and args[2] is not None:
        options = options_of(args[2], ("timeout",), "ask")
        if kw("timeout") in options:
            need_when(options.get(kw("timeout")), "the :timeout of ask")
    return m.ask(fiber, "ask", flow_id_of(args[0]), [args[1]], options=options)


@op("flow", "reply", 2, 2, "([message value])", "Answers a message that was asked: who asked it gets the value.")
def _reply(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    return m.ask(fiber, "reply", "", args)


# Processes and databases


def _command(x: Any) -> str:
    if not isinstance(x, (Vector, List)) or not len(x) or not all(isinstance(part, (str, Secret)) for part in x):
        raise LispError(f'sh needs a vector of strings such as ["ls" "-l"], but found {pr_str(x)}', type="type", hint='for a shell: (sh ["sh" "-c" "…"])')
    first = next(iter(x))
    if not isinstance(first, str):
        raise LispError("the program that sh runs cannot be a secret", type="type")
    return first


@op(
    "flow",
    "sh",
    1,
    2,
    "([command] [command {:keys [timeout env cwd stdin at-most-once]}])",
    "Runs a process, recorded, at most once by default: {:exit :out :err}.",
)
def _sh(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    options = options_of(args[1], ("timeout", "env", "cwd", "stdin", "at-most-once"), "sh") if len(args) > 1 and args[1] is not None else EMPTY_MAP
    return m.ask(fiber, "sh", _command(args[0]), [args[0]], options=options)


@op(
    "sql",
    "query",
    2,
    4,
    "([url query] [url query params] [url query params {:keys [timeout retry]}])",
    "The rows of a SELECT on another database, recorded: a vector of maps.",
)
def _query(m: Machine, fiber: Fiber, args: list[Any]) -> Any:
    url, query = args[0], args[1]
    if not isinstance(url, (str, Secret)) or not isinstance(query, str):
        raise LispError("sql/query needs a database's URL and a SELECT as strings", type="type")
    params = args[2] if len(args) > 2 and args[2] is not None else Vector.of([])
    if not isinstance(params, (Vector, List, Map)):
        raise LispError(f"the parameters of sql/query are a vector or a map, not {pr_str(params)}", type="type")
    options = options_of(args[3], ("timeout", "retry", "attempt-timeout"), "sql/query") if len(args) > 3 and args[3] is not None else EMPTY_MAP
    return m.ask(fiber, "sql/query", query, [url, params], options=options)


@primitive(
    "flow", "secret", "([name])", "A secret by its name: filled in only while a request is sent, never logged.", '(secret "API_KEY") ;=> #secret[API_KEY]'
)
def _secret(name: Any) -> Secret:
    return secret(name)
