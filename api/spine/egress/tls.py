"""The TLS of Spine's own connections: no version before 1.2, whatever Python and OpenSSL were built with."""

import ssl


def modern(context: ssl.SSLContext) -> ssl.SSLContext:
    """The same context, which refuses TLS 1.0 and 1.1. Some distributions build Python so that it accepts them."""
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    return context


def http_context() -> ssl.SSLContext:
    """The context of HTTPS: it trusts the authorities in `SSL_CERT_FILE` or `SSL_CERT_DIR`, else those of certifi."""
    import httpx

    return modern(httpx.create_ssl_context())
