"""The edge: the only room that knows aiohttp.web. Routes, parse, one thin handler for each kind of endpoint, write, wire errors."""
