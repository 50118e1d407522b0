"""The client: pictures or arrays in, predictions out, one at a time or as a stream; sync and async.

from tensign.client import Client

with Client("localhost:8001") as client:
    for answer in client.stream(Path("photos").glob("*.jpg")):
        print(answer.source, answer.label, answer.error)
"""

from tensign.client.aio import AsyncClient
from tensign.client.answer import Answer
from tensign.client.messages import Input, Picture
from tensign.client.metadata import ModelMetadata, ServerMetadata
from tensign.client.sync import Client

__all__ = ["Answer", "AsyncClient", "Client", "Input", "ModelMetadata", "Picture", "ServerMetadata"]
