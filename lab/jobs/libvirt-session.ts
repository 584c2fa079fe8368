import { TestBed } from '../../tools/vmm/test-bed.ts';
import { checkDomains } from '../guest/libvirt-checks.ts';
import { checkProbing, startWrapped } from '../guest/libvirt-wrapped.ts';

/** libvirt 9.0, as an ordinary user's daemon, with QEMU 7.2 under the wrapper. */

const mode = 'session';
const own = new TestBed(); // hosts outlive the checks
const a = await startWrapped(own, 'a', 'bookworm', { mode });
const b = await startWrapped(own, 'b', 'bookworm', { mode });
await checkProbing(mode, a);
await checkDomains(mode, a, b);
for (const { host } of [a, b]) host.end();
await own.cleanUp();
