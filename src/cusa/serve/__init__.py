"""The search as a web page and as a service: FastAPI on uvicorn over one or more index folders."""
