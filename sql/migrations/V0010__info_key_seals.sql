-- A chat's current info key sealed to the recovery key of a generation: for a device that has nothing but a password.
CREATE TABLE info_key_seals (
    chat_id              uuid NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    generation           bigint NOT NULL CHECK (generation > 0),
    key_id               uuid NOT NULL,
    key                  bytea NOT NULL CHECK (octet_length(key) = 80),
    sealed_by_session_id uuid NOT NULL,
    signature            bytea NOT NULL CHECK (octet_length(signature) = 64),
    PRIMARY KEY (chat_id, generation)
);
