"""`flowmetal publish`: an event for whoever subscribed to its topic.

In: a topic and JSON. Out: the event's message id. The one rule: it is printed when the event is on disk.
"""

from __future__ import annotations

import click

from flowmetal.cli.options import TAKES_JSON, common_json, json_argument, with_client
from flowmetal.cli.output import print_json


@click.command(context_settings=TAKES_JSON)
@click.argument("topic", metavar="TOPIC")
@click.argument("event", metavar="JSON")
@click.option("--key", metavar="KEY", help="The same key twice is one event.")
@common_json
def publish(topic: str, event: str, key: str | None, store: str | None, as_json: bool) -> None:
    """Publish a JSON event to TOPIC; print its message id."""
    value = json_argument(event, "JSON")
    message_id = with_client(store, lambda client: client.publish(topic, value, key=key))
    if as_json:
        print_json({"message_id": message_id})
    else:
        click.echo(message_id)
