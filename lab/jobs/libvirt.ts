import { TestBed } from '../../tools/vmm/test-bed.ts';
import { checkDomains } from '../guest/libvirt-checks.ts';
import { checkProbing, checkProbingUnderRun, startWrapped } from '../guest/libvirt-wrapped.ts';

/** libvirt 9.0, as root's daemon, with QEMU 7.2 under the wrapper. */

const own = new TestBed(); // hosts outlive the checks
const a = await startWrapped(own, 'a', 'bookworm');
const b = await startWrapped(own, 'b', 'bookworm');
await checkProbing('system', a);
await checkProbingUnderRun('system', a);
await checkDomains('system', a, b);
for (const { host } of [a, b]) host.end();
await own.cleanUp();
