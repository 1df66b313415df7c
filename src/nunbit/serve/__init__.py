"""The service: one server with an API that OpenAI's clients speak, and a page that calls nothing but that API.

Place in the river: the last step; it parses, calls what lies below, and answers. A request goes through

    gate (request id, size, time, memory) → access (key, scope, rate) → a route → the batcher (decode, encode)
                                                                               → the collection (search, in memory)
                                                                               → the writer (files, then one commit)

FastAPI is imported by ``app`` and ``routes`` only; the rest can be used, and is tested, without a web server.
"""
