// Rooms over Redis on socket.io: node redis_socketio.js PORT MODE, where MODE is `pubsub` (the Redis adapter) or
// `streams` (the Redis streams adapter).
'use strict';

const http = require('http');
const path = require('path');

const modules = path.join(__dirname, '..', 'node_modules');
const { Server } = require(path.join(modules, 'socket.io'));
const { createClient } = require(path.join(modules, 'redis'));

async function main() {
  const [port, mode] = [Number(process.argv[2]), process.argv[3]];
  const client = createClient({ url: process.env.BENCH_REDIS });
  await client.connect();
  let adapter;
  if (mode === 'streams') {
    const { createAdapter } = require(path.join(modules, '@socket.io', 'redis-streams-adapter'));
    adapter = createAdapter(client, { streamName: process.env.BENCH_PREFIX });
  } else {
    const { createAdapter } = require(path.join(modules, '@socket.io', 'redis-adapter'));
    const subscriber = client.duplicate();
    await subscriber.connect();
    adapter = createAdapter(client, subscriber, { key: process.env.BENCH_PREFIX });
  }
  const server = http.createServer();
  const io = new Server(server, { adapter, transports: ['websocket'], perMessageDeflate: false });
  io.on('connection', (socket) => {
    socket.on('join', (room) => { socket.join(room); socket.emit('said', 'joined'); });
    socket.on('say', (message) => {
      const space = message.indexOf(' ');
      io.to(message.slice(0, space)).emit('said', message.slice(space + 1));
    });
  });
  server.listen(port, '127.0.0.1', 1024, () => console.log(`READY ${server.address().port}`));
}

main();
