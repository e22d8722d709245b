# node: children, worker threads, an HTTP server and its clients, sockets, files, signals.
set -e
export HOME=/tmp
cat >test.js <<'END'
const {spawn, fork, execFileSync} = require('child_process');
const {Worker} = require('worker_threads');
const http = require('http'), net=require('net'), fs=require('fs'), crypto=require('crypto'), zlib=require('zlib'), dgram=require('dgram'), util=require('util');
async function main() {
  const alive = setInterval(() => {}, 1000);
  console.log('exec', execFileSync('echo', ['hello']).toString().trim());
  const many = await Promise.all([...Array(10).keys()].map(i => new Promise(r => {
    const c = spawn('sh', ['-c', `cat; exit ${i}`]); let out = ''; c.stdout.on('data', d => out += d);
    c.on('close', (code, sig) => r(`${out}:${code}`)); c.stdin.end('in' + i); })));
  console.log(many.join(' '));
  const killed = await new Promise(r => { const c = spawn('sleep', ['100']); c.on('exit', (code, sig) => r(sig)); c.kill('SIGTERM'); });
  console.log('killed by', killed);
  const shared = new SharedArrayBuffer(8), cell = new Int32Array(shared);
  const sums = await Promise.all([...Array(6).keys()].map(i => new Promise((r, j) => {
    const w = new Worker(`const {parentPort, workerData} = require('worker_threads');
      const a = new Int32Array(workerData.s); let s = 0; for (let k = 0; k < 100000; k++) { s += k % (workerData.i + 2); if (k % 100 == 0) Atomics.add(a, 0, 1); }
      Atomics.add(a, 1, 1); Atomics.notify(a, 1); parentPort.postMessage(s);`, {eval: true, workerData: {s: shared, i}});
    w.on('message', r); w.on('error', j); })));
  console.log('workers', sums.join(' '), cell[0], cell[1]);
  const server = http.createServer((q, s) => { let n = 0; q.on('data', d => n += d.length); q.on('end', () => { s.setHeader('x-n', n); s.end(q.url === '/big' ? Buffer.alloc(300000, 'x') : 'path ' + q.url); }); });
  server.keepAliveTimeout = 0; // Else it may end what the client is about to use again.
  await new Promise(r => server.listen(0, '127.0.0.1', r));
  const port = server.address().port, agent = new http.Agent({keepAlive: true, maxSockets: 8});
  const get = (path, body) => new Promise((r, j) => { const q = http.request({port, host: '127.0.0.1', path, method: body ? 'POST' : 'GET', agent}, s => {
    const h = crypto.createHash('sha1'); let n = 0; s.on('data', d => { h.update(d); n += d.length; }); s.on('end', () => r([s.statusCode, n, s.headers['x-n'], h.digest('hex').slice(0, 8)].join('/'))); }); q.on('error', j); q.end(body); });
  console.log(await get('/a'), await get('/big'), await get('/b', Buffer.alloc(200000, 'y')));
  const all = await Promise.all([...Array(200).keys()].map(i => get('/' + i % 10)));
  console.log('requests', all.length, new Set(all).size);
  agent.destroy(); await new Promise(r => server.close(r));
  const echo = net.createServer(c => c.pipe(c)); await new Promise(r => echo.listen('/tmp/node.sock', r));
  console.log('unix', await new Promise(r => { const c = net.connect('/tmp/node.sock'); let n = 0; c.on('data', d => { n += d.length; if (n === 1000000) c.end(); }); c.on('close', () => r(n)); c.write(Buffer.alloc(1000000)); }));
  await new Promise(r => echo.close(r));
  const data = crypto.createHash('md5').update('x'.repeat(1e6)).digest();
  const big = Buffer.alloc(2000000); for (let i = 0; i < big.length; i++) big[i] = i * 7 % 251;
  const packed = await util.promisify(zlib.gzip)(big); console.log('gzip', (await util.promisify(zlib.gunzip)(packed)).equals(big));
  await fs.promises.mkdir('/tmp/nd'); await Promise.all([...Array(100).keys()].map(i => fs.promises.writeFile('/tmp/nd/' + i, 'v' + i)));
  console.log('files', (await Promise.all((await fs.promises.readdir('/tmp/nd')).sort().map(f => fs.promises.readFile('/tmp/nd/' + f, 'utf8')))).join('').length);
  const seen = new Promise(r => { const w = fs.watch('/tmp/nd', (e, f) => { if (f === 'new') { w.close(); r(e); } }); }); fs.writeFileSync('/tmp/nd/new', ''); console.log('watch', await seen);
  console.log('scrypt', (await util.promisify(crypto.scrypt)('p', 's', 32)).toString('hex').slice(0, 16));
  const u = dgram.createSocket('udp4'); await new Promise(r => u.bind(0, '127.0.0.1', r));
  const got = new Promise(r => u.on('message', m => r(m.toString()))); u.send('datagram', u.address().port, '127.0.0.1'); console.log('udp', await got); u.close();
  const sig = new Promise(r => process.on('SIGUSR2', () => r('SIGUSR2'))); process.kill(process.pid, 'SIGUSR2'); console.log('signal', await sig);
  fs.writeFileSync('/tmp/child.js', `process.on('message', m => { if (m === 'end') process.disconnect(); else process.send(m * 2); });`);
  const ch = fork('/tmp/child.js'); let total = 0, left = 50; ch.on('message', m => { total += m; if (--left === 0) ch.send('end'); }); for (let i = 0; i < 50; i++) ch.send(i);
  console.log('fork', await new Promise(r => ch.on('exit', c => r([c, total].join(' ')))));
}
main().then(() => process.exit(3));
END
status=0
node test.js || status=$?
echo "exit $status"
