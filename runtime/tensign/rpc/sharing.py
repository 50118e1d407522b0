"""The RPCs by which clients register memory that they share with the server."""

from __future__ import annotations

import asyncio
from typing import Any

from tensign._pb import open_inference_pb2 as pb
from tensign.devicememory import DeviceRegion
from tensign.regions import Regions, SystemRegion

_EXTENSIONS = {SystemRegion: "system_shared_memory", DeviceRegion: "cuda_shared_memory"}


class Sharing:
    """Methods are named as their RPCs; the table is changed in threads, for a driver may take its time."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    @property
    def extensions(self) -> tuple[str, ...]:
        """Triton's words for what is switched on."""
        return tuple(_EXTENSIONS[kind] for kind in self._regions.kinds)

    async def SystemSharedMemoryStatus(
        self, request: pb.SystemSharedMemoryStatusRequest, context: Any
    ) -> pb.SystemSharedMemoryStatusResponse:
        response = pb.SystemSharedMemoryStatusResponse()
        for one in self._regions.registered(SystemRegion, request.name):
            assert isinstance(one, SystemRegion)
            told = response.regions[one.name]
            told.name, told.key, told.offset, told.byte_size = one.name, one.key, one.offset, one.byte_size
        return response

    async def SystemSharedMemoryRegister(
        self, request: pb.SystemSharedMemoryRegisterRequest, context: Any
    ) -> pb.SystemSharedMemoryRegisterResponse:
        await asyncio.to_thread(self._regions.register, request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest, context: Any
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        await asyncio.to_thread(self._regions.unregister, SystemRegion, request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def CudaSharedMemoryStatus(
        self, request: pb.CudaSharedMemoryStatusRequest, context: Any
    ) -> pb.CudaSharedMemoryStatusResponse:
        response = pb.CudaSharedMemoryStatusResponse()
        for one in self._regions.registered(DeviceRegion, request.name):
            assert isinstance(one, DeviceRegion)
            told = response.regions[one.name]
            told.name, told.device_id, told.byte_size = one.name, one.index, one.byte_size
        return response

    async def CudaSharedMemoryRegister(
        self, request: pb.CudaSharedMemoryRegisterRequest, context: Any
    ) -> pb.CudaSharedMemoryRegisterResponse:
        await asyncio.to_thread(
            self._regions.register_on_device, request.name, request.raw_handle, request.device_id, request.byte_size
        )
        return pb.CudaSharedMemoryRegisterResponse()

    async def CudaSharedMemoryUnregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest, context: Any
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        await asyncio.to_thread(self._regions.unregister, DeviceRegion, request.name)
        return pb.CudaSharedMemoryUnregisterResponse()
