from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from tasks.services.seaweed import counted_requests

METRICS = """# TYPE SeaweedFS_s3_request_total counter
SeaweedFS_s3_request_total{bucket="",code="403",type="LIST"} 1
SeaweedFS_s3_request_total{bucket="wave",code="200",type="GET"} 1.2e+03
SeaweedFS_s3_request_total{bucket="wave",code="404",type="GET"} 5
SeaweedFS_s3_request_total{bucket="wave",code="200",type="PUT"} 7
SeaweedFS_s3_bucket_traffic_sent_bytes_total{bucket="wave"} 99
"""


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(METRICS.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_requests_are_counted_by_their_kind_over_buckets_and_answers() -> None:
    with HTTPServer(("127.0.0.1", 0), _Metrics) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            assert counted_requests(server.server_port) == {"LIST": 1, "GET": 1205, "PUT": 7}
        finally:
            server.shutdown()
            thread.join()
