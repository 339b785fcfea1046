"""A server of the Python SDK for the example to call. It first prints a line that is not a message."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("peer")


@server.tool()
def add(a: int, b: int) -> int:
    return a + b


@server.tool()
def repeat(text: str, times: int) -> str:
    return text * times


@server.tool()
def divide(a: int, b: int) -> float:
    return a / b


print("starting, with a line that does not belong here", flush=True)
server.run()
