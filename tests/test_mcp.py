"""The MCP tools of ``python app.py --mcp``, through the protocol's own client."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client
from mcp.types import CallToolResult, Tool
from PIL import Image
from serving import Server, start

TOOLS = {"detect_faces", "latent_grid", "reference_mix", "interpolate", "list_models"}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = start("--mcp")
    yield server
    server.stop()


def ask(server: Server, name: str, *arguments: Any) -> Any:
    """One call of a session's method."""

    async def session() -> Any:
        address = f"{server.url}gradio_api/mcp/"
        async with streamablehttp_client(address) as (read, write, _), ClientSession(read, write) as client:
            await client.initialize()
            return await getattr(client, name)(*arguments)

    return asyncio.run(session())


def call(server: Server, tool: str, **arguments: Any) -> CallToolResult:
    return ask(server, "call_tool", tool, arguments)


def test_every_tool_says_what_it_takes(server: Server) -> None:
    tools: list[Tool] = ask(server, "list_tools").tools
    assert {tool.name for tool in tools} == TOOLS
    for tool in tools:
        assert len(tool.description) > 30, tool.name
        assert all(p.get("description") for p in tool.inputSchema["properties"].values()), tool.name


def test_a_photo_is_drawn(server: Server, portrait: Image.Image) -> None:
    data = io.BytesIO()
    portrait.save(data, "PNG")
    photo = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    answer = call(server, "latent_grid", photo=photo, count=2, seed=3)
    assert not answer.isError, answer.content
    addresses = re.findall(r"'url': '([^']+)'", answer.content[0].text)  # Gradio hands several outputs over as one text
    pictures = [Image.open(io.BytesIO(urllib.request.urlopen(address).read())) for address in addresses]
    assert len(pictures) == 5  # the crop, two drawings, the grid, the whole photo
    assert pictures[-1].size == portrait.size
    refused = call(server, "latent_grid", photo=photo, domain="dog")
    assert refused.isError
    assert "cannot draw dog" in refused.content[0].text


def test_models_are_listed(server: Server) -> None:
    assert "anime-128" in call(server, "list_models").content[0].text
