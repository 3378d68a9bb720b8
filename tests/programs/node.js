// Without a port: a server, by the cluster module if `workers` is not 0. With one: its client.
const assert = require('assert');
const cluster = require('cluster');
const http = require('http');

const [workers, schedule, port] = process.argv.slice(2);

const large = Buffer.alloc(10_000_000);
for (let i = 0; i < large.length; i += 4) large.writeUInt32LE(Math.imul(i, 2654435761) >>> 0, i);

function serve() {
    const server = http.createServer((request, response) => {
        if (request.url === '/die') process.kill(process.pid, 'SIGKILL');
        const chunks = [];
        request.on('data', chunk => chunks.push(chunk));
        request.on('end', () => response.end(Buffer.concat(chunks)));
    });
    server.listen(0, '127.0.0.1', () => {
        if (cluster.isPrimary) console.log('listening on port', server.address().port);
    });
}

async function lead() {
    cluster.schedulingPolicy = schedule === 'shared' ? cluster.SCHED_NONE : cluster.SCHED_RR;
    let listening = 0;
    cluster.on('listening', (worker, address) => {
        if (++listening === Number(workers)) console.log('listening on port', address.port);
    });
    cluster.on('exit', () => console.log('a worker has died'));
    for (let i = 0; i < workers; i++) cluster.fork();
}

async function fetch() {
    const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
    const post = (path, body) => new Promise((resolve, reject) => {
        const request = http.request({ host: '127.0.0.1', port, path, agent, method: 'POST' }, response => {
            const chunks = [];
            response.on('data', chunk => chunks.push(chunk));
            response.on('end', () => resolve(Buffer.concat(chunks)));
            response.on('error', reject);
        });
        request.on('error', reject);
        request.end(body);
    });
    let count = 0;
    const small = async () => {
        for (let i = 0; i < 300; i++) {
            const body = `request ${i}`;
            assert.strictEqual((await post('/', body)).toString(), body);
            count++;
        }
    };
    await Promise.all(Array.from({ length: 16 }, small));
    const big = async () => {
        assert(large.equals(await post('/', large)), 'the large body differs');
        count++;
    };
    await Promise.all(Array.from({ length: 8 }, big));
    if (workers > 0) {
        await assert.rejects(post('/die', ''), { code: 'ECONNRESET' });
        // The other worker goes on.
        for (;;) {
            try {
                await post('/', '');
                break;
            } catch (error) {
                assert.strictEqual(error.code, 'ECONNRESET');
            }
        }
    }
    agent.destroy();
    console.log(count, 'answers');
}

if (port) fetch();
else if (cluster.isPrimary && workers > 0) lead();
else serve();
