"""The object store of the tests: moto's S3, of whose conditional puts one wins, as in S3.

Run as a program it serves on a free port of loopback, whose URL is the first line that it says. moto by itself looks
whether an object is there and then writes it, so that now and then two of several writers win. Other conditional
requests are as moto has them.
"""

import threading
from typing import Any

from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
from moto.s3.responses import S3Response
from werkzeug.serving import make_server

_one_at_a_time = threading.Lock()
_put_object = S3Response.put_object


def put_object(response: S3Response) -> Any:
    """As moto's, but by one thread at a time; the body is there already."""
    with _one_at_a_time:
        return _put_object(response)


def main() -> None:
    S3Response.put_object = put_object  # type: ignore[method-assign]
    app = create_backend_app("s3")
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    print(f"http://127.0.0.1:{server.port}", flush=True)  # noqa: T201 - where it is
    server.serve_forever()


if __name__ == "__main__":
    main()
