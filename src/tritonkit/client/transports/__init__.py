"""The transports: KServe v2 over HTTP and over gRPC, each blocking and for asyncio."""
