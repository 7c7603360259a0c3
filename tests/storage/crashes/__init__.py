# SPDX-License-Identifier: Apache-2.0
"""Every crash of a recorded run of storage, and every damage at rest. A map of the package; nothing is said here.

recorder.py   a disk that writes down each operation asked of it
package.py    copies of the storage package, small enough to search and changed where a bug is planted
story.py      the run that is recorded, drawn from a seed, and what may be found at each moment of it
afloat.py     what a power cut may leave of operations that no sync covers
states.py     which of that is tried
oracle.py     what storage may say of it
search.py     the search itself, and the names of its states
"""
