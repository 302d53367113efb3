package wire

import (
	"encoding/binary"
	"fmt"

	"steward/message"
)

// The sizes of what stands behind the body of a signed frame, ack or claim: two numbers, a
// key, and the signature itself.
const (
	keySize     = 32
	sumSize     = 64
	trailerSize = 8 + 8 + keySize + sumSize
)

var be = binary.BigEndian

// Signature proves who has sent a frame, ack or claim, and that it was not changed on the
// way, nor put on another subject.
type Signature struct {
	// Mine is a number that the sender has drawn at its start. Yours is, in a frame, that
	// of the receiver, as far as the sender knows it, and 0 else; in an ack it is Yours of the frame.
	Mine, Yours uint64
	// Key is the public key that the signature was made with, Sum the signature.
	Key [keySize]byte
	Sum [sumSize]byte
}

// Sign puts a signature behind what [Codec.EncodeFrame], [Codec.EncodeAck] or [EncodeClaim]
// returned, and that is about to be sent on a subject, with another one for answers. sign gets
// all that is to be signed, and returns what becomes Sum. data is used up.
func Sign(data []byte, subject, reply string, s Signature, sign func(text []byte) []byte) []byte {
	data[2] |= flagSigned
	data = be.AppendUint64(data, s.Mine)
	data = be.AppendUint64(data, s.Yours)
	data = append(data, s.Key[:]...)
	return append(data, sign(signedText(data, subject, reply))...)
}

// ReadSignature returns the signature of what came on a subject, and the text that it has to be
// of; ok is false when there is none. The error wraps [message.ErrInvalid] or is [ErrVersion].
// Nothing else is decoded.
func ReadSignature(data []byte, subject, reply string) (s Signature, text []byte, ok bool, err error) {
	flags, _, err := envelope("envelope", data)
	if err != nil || flags&flagSigned == 0 {
		return s, nil, false, err
	}
	signed := data[:len(data)-sumSize]
	copy(s.Sum[:], data[len(signed):])
	t := signed[len(signed)-(trailerSize-sumSize):]
	s.Mine, s.Yours = be.Uint64(t), be.Uint64(t[8:])
	copy(s.Key[:], t[16:])
	return s, signedText(signed, subject, reply), true, nil
}

// signedText is what a signature is over: subject, reply and data, the first two with their lengths
// before them, so that no end of one can be taken for the beginning of the next.
func signedText(data []byte, subject, reply string) []byte {
	text := make([]byte, 0, 8+len(subject)+len(reply)+len(data))
	for _, s := range []string{subject, reply} {
		text = append(be.AppendUint32(text, uint32(len(s))), s...)
	}
	return append(text, data...)
}

// unsigned takes the signature off the body of an envelope.
func unsigned(what string, body []byte) ([]byte, error) {
	if len(body) < trailerSize {
		return nil, fmt.Errorf("%w %s: %d bytes, which do not hold a signature", message.ErrInvalid, what, len(body))
	}
	return body[:len(body)-trailerSize], nil
}
