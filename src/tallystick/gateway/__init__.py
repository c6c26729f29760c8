"""The gateway: authorize, call the provider, settle, for apps that change their base_url.

Owns surfaces, upstreams, streams, routing and the money path of one call. Never keeps a
prompt or an answer. Time: a call lives as long as its request, and its hold a little longer.
"""
