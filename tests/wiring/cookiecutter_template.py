from fastapi import FastAPI

{% if cookiecutter.use_sentry == "yes" -%}
import sentry_sdk

sentry_sdk.init()
{%- endif %}

app = FastAPI(title="{{ cookiecutter.project_name }}")


@app.get("/")
def index():
    return {"name": "{{ cookiecutter.project_slug }}"}
