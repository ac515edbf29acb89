// Node's ws. Same convention as the Python servers: node node_ws.js PORT MODE, see __init__.py.
'use strict';

const fs = require('fs');
const http = require('http');
const https = require('https');
const path = require('path');
const { WebSocketServer } = require(path.join(__dirname, '..', 'node_modules', 'ws'));

const [port, mode] = [Number(process.argv[2]), process.argv[3]];
let server;
if (mode === 'tls') {
  const pem = fs.readFileSync(process.env.BENCH_CERTIFICATE);
  server = https.createServer({ key: pem, cert: pem });
} else {
  server = http.createServer();
}

const wss = new WebSocketServer({
  server,
  maxPayload: 4 * 1024 * 1024,
  perMessageDeflate: mode === 'deflate',
});

wss.on('connection', (ws) => {
  ws.on('error', () => {});
  if (mode === 'fanout') {
    ws.on('message', (data, isBinary) => {
      for (const member of wss.clients) member.send(data, { binary: isBinary });
    });
  } else {
    ws.on('message', (data, isBinary) => ws.send(data, { binary: isBinary }));
  }
});

if (mode === 'keepalive') {
  // ws has no keepalive of its own; this is the loop its README recommends.
  wss.on('connection', (ws) => {
    ws.isAlive = true;
    ws.on('pong', () => { ws.isAlive = true; });
  });
  setInterval(() => {
    for (const ws of wss.clients) {
      if (!ws.isAlive) { ws.terminate(); continue; }
      ws.isAlive = false;
      ws.ping();
    }
  }, 20000);
}

server.listen(port, '127.0.0.1', 1024, () => console.log(`READY ${server.address().port}`));
