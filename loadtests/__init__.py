"""Load on a running gateway: locust files, load shapes, raw records, objectives, and a soak.

Only `caller`, `shapes` and the locust files themselves import locust. It patches the standard library when it is imported, so it runs in
processes of its own and everything else here can be imported anywhere.
"""
