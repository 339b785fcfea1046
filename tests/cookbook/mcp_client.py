"""Calls the example's tool with the client of the Python SDK. Argument: the server's program."""

import asyncio
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client


async def main():
    async with stdio_client(StdioServerParameters(command=sys.argv[1])) as (read, write):
        async with ClientSession(read, write) as session:
            await session.initialize()
            tools = (await session.list_tools()).tools
            text = "one\ntwo \u2028 " + "x" * 1_000_000
            counted = await session.call_tool("count", {"text": text})
            try:
                await session.call_tool("nothing", {})
            except Exception as error:
                refused = str(error)
            print(tools[0].name, counted.content[0].text, refused, sep="; ")


asyncio.run(asyncio.wait_for(main(), 60))
