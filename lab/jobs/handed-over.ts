import { check } from '../guest/check.ts';
import { pathOf } from '../guest/client.ts';
import { assertHandedOver } from '../guest/hand-over.ts';

/** A device that one run hands to another; both runs serve. */

await check('a device of another run is not taken for one of its own, and both are saved whole', (bed) =>
  assertHandedOver(bed, pathOf, pathOf),
);
