import logging

import flask


def create_app(config=None):
    app = flask.Flask("billing")
    app.config.from_mapping(config or {})
    logging.basicConfig(level="INFO")

    @app.get("/health")
    def health():
        return {"status": "ok"}

    return app
