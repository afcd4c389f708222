from fastapi import FastAPI


def create_app():
	app = FastAPI()

	@app.on_event("startup")
	def startup():
		record("startup")

	return app
