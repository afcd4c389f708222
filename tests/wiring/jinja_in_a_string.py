from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from jinja2 import Template

PAGE = Template(
    """
<html>
  <body>
    {% for name in names %}
    <p>{{ name }}</p>
    {% endfor %}
  </body>
</html>
"""
)

app = FastAPI()


@app.get("/", response_class=HTMLResponse)
def index() -> str:
    return PAGE.render(names=["Ada", "Grace"])
