"""Rows with identities from many clients at once, in a few processes, and what the server counted of them."""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import grpc

from tensign._pb import open_inference_pb2 as pb

from .client import SERVICE, Client
from .ledger import Ledger
from .models import WORK


@dataclass(frozen=True, slots=True)
class Load:
    """rows: right answers that all clients together wait for. largest: rows of the server's largest batch."""

    address: str
    seed: int
    rows: int
    clients: int = 32
    largest: int = 64
    work: int = WORK
    within_s: float = 900.0


def run(load: Load, processes: int = 2) -> Ledger:
    """Sends the load from `processes` child processes. Raises TimeoutError where the clients are not done in time."""
    shares = [range(load.clients)[first::processes] for first in range(processes)]
    book = Ledger(load.work)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        for ledger in pool.map(_share, [load] * processes, shares):
            book.add(ledger)
    return book


def statistics(address: str) -> pb.ModelStatistics:
    """What the server itself has counted."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            SERVICE + "ModelStatistics",
            pb.ModelStatisticsRequest.SerializeToString,
            pb.ModelStatisticsResponse.FromString,
        )
        return call(pb.ModelStatisticsRequest(name="identity")).model_stats[0]


def troubles(load: Load, book: Ledger, counted: pb.ModelStatistics) -> list[str]:
    """What the clients, or the server's own counts, have to complain of; each line to be told with the seed."""
    found = book.troubles()
    if not book.faulty and book.rows["right"] < load.rows:
        found.append(f"{book.rows['right']} rows were answered right, {load.rows} were wanted: a client stopped early")
    ran, right = counted.inference_count, book.rows["right"]
    given_up = book.rows["cancelled"] + book.rows["expired"]
    if not book.faulty and not right <= ran <= right + given_up:
        found.append(f"the engine ran {ran} rows; {right} were answered, {given_up} given up, the others refused")
    return found


def largest_batch(address: str) -> int:
    """Rows of the largest batch that the server runs."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            SERVICE + "ModelMetadata", pb.ModelMetadataRequest.SerializeToString, pb.ModelMetadataResponse.FromString
        )
        return int(call(pb.ModelMetadataRequest(name="identity")).parameters["batch_sizes"].string_param.split(",")[-1])


def _share(load: Load, clients: range) -> Ledger:
    async def together() -> Ledger:
        book = Ledger(load.work)
        async with asyncio.timeout(load.within_s), asyncio.TaskGroup() as group:
            made = [Client(number, seed=load.seed, largest=load.largest, work=load.work) for number in clients]
            for client in made:
                group.create_task(client.run(load.address, -(-load.rows // load.clients)))
        for client in made:
            book.add(client.ledger)
        return book

    return asyncio.run(together())
